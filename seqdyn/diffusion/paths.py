"""Sample paths of many series: guided reverse chains whose noise belongs to the path, not to the batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from seqdyn._arguments import check_count
from seqdyn.diffusion.denoiser import Denoiser
from seqdyn.diffusion.guidance import POINTS, QuantileGuidance, SquareGuidance
from seqdyn.diffusion.samplers import ddim, ddpm
from seqdyn.diffusion.schedule import NoiseSchedule
from seqdyn.errors import NonFiniteError
from seqdyn.rng import NoiseSource

__all__ = ["GUIDANCE_SCALES", "PathOptions", "draw_paths"]

# Square guidance diverges at 1 on some trained models; quantile gradients are bounded per cell.
GUIDANCE_SCALES = {"quantile": 4.0, "square": 0.1}
SAMPLERS: dict[str, Callable[..., Tensor]] = {"ddpm": ddpm, "ddim": ddim}

Part = tuple[slice, slice]


@dataclasses.dataclass(frozen=True)
class PathOptions:
    """How to draw; checked once.

    Args:
        num_samples: Paths per series S.
        seed: Seed that, with the label and the index of a path, fixes its noise.
        guidance: ``"quantile"``, ``"square"`` or ``None``.
        guidance_scale: Strength; ``None`` is 4.0 for quantile and 0.1 for square guidance.
        guidance_point: ``"proposal"`` or ``"xt"``.
        sampler: ``"ddpm"`` or ``"ddim"``.
        num_steps: Diffusion steps to use; ``None`` for all.
        batch_size: Paths drawn at a time.
        progress: Show a progress bar.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    num_samples: int
    seed: int
    guidance: str | None
    guidance_scale: float | None
    guidance_point: str
    sampler: str
    num_steps: int | None
    batch_size: int
    progress: bool

    def __post_init__(self) -> None:
        check_count(self.num_samples, "num_samples", hint="100 is usual")
        check_count(self.batch_size, "batch_size")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {tuple(SAMPLERS)}, got {self.sampler!r}.")
        if self.guidance is not None and self.guidance not in GUIDANCE_SCALES:
            raise ValueError(
                f"guidance must be one of {tuple(GUIDANCE_SCALES)} or None, got {self.guidance!r}."
            )
        if self.guidance_point not in POINTS:
            raise ValueError(f"guidance_point must be one of {POINTS}, got {self.guidance_point!r}.")
        scale = self.guidance_scale
        if scale is not None and not (isinstance(scale, Real) and 0 < scale < float("inf")):
            raise ValueError(
                f"guidance_scale must be a positive number, got {scale!r}; "
                "for draws without guidance pass guidance=None."
            )

    @property
    def scale(self) -> float | None:
        """The guidance scale in force."""
        if self.guidance is None:
            return None
        return GUIDANCE_SCALES[self.guidance] if self.guidance_scale is None else self.guidance_scale

    def provenance(self) -> dict[str, Any]:
        """What a result should say about how it was drawn, as netCDF attributes."""
        options: dict[str, Any] = {"guidance": self.guidance or "none", "sampler": self.sampler}
        if self.guidance is not None:
            point = "xt" if self.sampler == "ddim" else self.guidance_point
            options |= {"guidance_scale": self.scale, "guidance_point": point}
        return options | {"num_steps": "all" if self.num_steps is None else self.num_steps}


@torch.no_grad()
def draw_paths(
    predict_noise: Callable[..., Tensor],
    schedule: NoiseSchedule,
    target: Tensor,
    observed: Tensor,
    labels: Sequence[tuple[object, ...]],
    options: PathOptions,
    *,
    covariates: Tensor | None = None,
    keep: Part = (slice(None), slice(None)),
    trajectory_steps: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Draw paths of each series given its observed cells.

    Args:
        predict_noise: ``(x, step)`` or ``(x, step, covariates)`` to noise, parameters frozen.
        schedule: Its schedule.
        target: Scaled observations, (M, L, D); ignored where unobserved.
        observed: Mask, bool (M, L, D).
        labels: One label per series, which keys its noise.
        options: How to draw.
        covariates: Covariates, (M, L, F).
        keep: Time steps l and channels c to return; the rest of a window is dropped batch by batch.
        trajectory_steps: Diffusion steps after which to keep the state, too.

    Returns:
        Draws (S, M, l, c) and states (len(trajectory_steps), S, M, l, c), on the processor.

    Raises:
        NonFiniteError: If draws stop being finite.
    """
    num_paths, size = len(target) * options.num_samples, options.batch_size
    draws: list[Tensor] = []
    states: list[Tensor] = []
    starts = range(0, num_paths, size)
    for start in tqdm(
        starts, desc="sampling", leave=False, disable=None if options.progress and len(starts) > 1 else True
    ):
        paths = torch.arange(start, min(start + size, num_paths))
        series, sample = paths // options.num_samples, paths % options.num_samples
        rows = series.to(target.device)
        denoiser = Denoiser(predict_noise, schedule)
        if covariates is not None:
            denoiser = Denoiser(functools.partial(predict_noise, covariates=covariates[rows]), schedule)
        streams = [(*labels[m], k) for m, k in zip(series.tolist(), sample.tolist(), strict=True)]
        noise, recorder = NoiseSource(options.seed, streams), _Recorder(trajectory_steps, keep)
        x = SAMPLERS[options.sampler](
            denoiser,
            noise.normal(schedule.num_diffusion_steps, target[rows]),
            guidance=_guidance(denoiser, target[rows], observed[rows], sample, options),
            num_steps=options.num_steps,
            draw=noise.normal,
            callback=recorder,
        )[:, *keep]
        finite = torch.isfinite(x).flatten(1).all(1)
        if not bool(finite.all()):
            raise NonFiniteError(_diverged(labels[int(series[int(finite.int().argmin())])], options))
        draws.append(x.cpu())
        states.append(recorder.states(x))
    shape = (len(target), options.num_samples)
    return (
        torch.cat(draws).unflatten(0, shape).transpose(0, 1),
        torch.cat(states, dim=1).unflatten(1, shape).transpose(1, 2),
    )


class _Recorder:
    """Keeps the states after some steps of a chain."""

    def __init__(self, steps: Sequence[int], keep: Part) -> None:
        self._steps, self._keep = steps, keep
        self._kept: dict[int, Tensor] = {}

    def __call__(self, step: int, x: Tensor) -> None:
        if step in self._steps:
            self._kept[step] = x[:, *self._keep].cpu()

    def states(self, like: Tensor) -> Tensor:
        """The states, (number of steps, B, l, c)."""
        if not self._steps:
            return like.new_empty(0, *like.shape, device="cpu")
        return torch.stack([self._kept[step] for step in self._steps])


def _guidance(
    denoiser: Denoiser, target: Tensor, observed: Tensor, sample: Tensor, options: PathOptions
) -> SquareGuidance | QuantileGuidance | None:
    if options.scale is None:
        return None
    if options.guidance == "square":
        return SquareGuidance(denoiser, target, observed, options.scale, options.guidance_point)
    # A path's level belongs to its index among all paths, not to its place in this batch.
    levels = ((sample + 1) / (options.num_samples + 1)).to(target)
    return QuantileGuidance(denoiser, target, observed, options.scale, levels, options.guidance_point)


def _diverged(label: tuple[object, ...], options: PathOptions) -> str:
    name, scale = label[0], options.scale
    if options.guidance is None or scale is None:
        return f"draws of series {name!r} are not finite: the network's weights are at fault; train again."
    smaller = min(scale / 4, GUIDANCE_SCALES[options.guidance])
    return (
        f"draws of series {name!r} diverged under {options.guidance} guidance with guidance_scale={scale:g}; "
        f"try guidance_scale={smaller:g}."
    )
