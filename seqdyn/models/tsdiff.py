r"""TSDiff: one unconditional diffusion model of windows, conditioned only when it is used.

A window of ``context_length + prediction_length`` steps, divided by the mean absolute value of its context,
is diffused together with lagged copies of itself as further channels. Forecasting and imputation are the same
call: what is observed guides the reverse chain through the network's own estimate of the clean window
(:mod:`seqdyn.diffusion.guidance`), everything else is drawn.

Source: Kollovieh et al. (2023), arXiv 2307.11494.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from seqdyn.data.alike import check_alike
from seqdyn.data.convert import forecast_dataset, provenance
from seqdyn.data.covariates import known_covariates, window_covariates
from seqdyn.data.early_ends import warn_of_early_ends
from seqdyn.data.schema import (
    COVARIATE,
    COVARIATES,
    FEATURE,
    OBSERVED,
    SAMPLE,
    SERIES,
    TARGET,
    TIME,
    check_sequences,
    describe,
)
from seqdyn.data.sequences import SequenceDataModule
from seqdyn.data.tiles import cover_gaps, cut, last_steps, to_tensors
from seqdyn.diffusion.paths import GUIDANCE_SCALES, PathOptions, draw_paths
from seqdyn.diffusion.schedule import NoiseSchedule
from seqdyn.models.base import Model
from seqdyn.models.tsdiff_settings import expand
from seqdyn.nn.backbone import FrozenBackbone, S4Backbone
from seqdyn.nn.scalers import MeanScaler, Standardizer
from seqdyn.rng import ambient_seed

if TYPE_CHECKING:
    import pytorch_lightning as pl

__all__ = ["TSDiff"]


class Windows(NamedTuple):
    """Scaled windows with their lag channels; C features give D = C (1 + number of lags) channels."""

    values: Tensor  # (B, L, D), zero where unobserved
    observed: Tensor  # (B, L, D)


class TSDiff(Model):
    """Unconditional diffusion of time-series windows, guided to forecast and to fill gaps.

    Args:
        num_features: Values per time step, C.
        context_length: Steps of history the network sees, K. Paper: 336.
        prediction_length: Steps to forecast, H. Paper: 24.
        lags: Lagged copies diffused along with the series, in time steps; ``"hourly"`` is 24 times 1-7, 14,
            21, 28 and ``"daily"`` 30 times 1-12, the paper's sets (stored expanded). They need ``max(lags)``
            steps before the context. Paper preset: none.
        num_diffusion_steps: Diffusion steps T.
        num_covariates: Covariates known in the past and in the future, F; they enter every block,
            standardised.
        lower: Clip draws below this value, in the units of the data: 0.0 for counts.
        hidden_size: Width of the network. Paper: 64.
        num_blocks: Residual blocks. Paper: 3.
        state_size: S4 states per channel. Paper: 128.
        embedding_size: Sinusoids of the step embedding. Paper: 128.
        kernel: ``"nplr-legs"``, or the cheaper diagonal ``"s4d-legs"`` and ``"s4d-lin"``.
        init_skip: Add the network's input to its output.
        beta_end: Last beta of the linear schedule, which starts at 1e-4.
        learning_rate: Of Adam.
        batch_size: Windows per training step.
        batches_per_epoch: Training steps called one epoch.
        preset: ``"paper"``, or ``"small"`` for a quick fit on a processor (168 steps of context, hourly lags,
            width 32, 2 blocks). Arguments given explicitly win; the preset is expanded before anything is
            saved.

    Raises:
        ValueError: If an argument is out of range.
    """

    gradient_clip_val = 0.5

    def __init__(
        self,
        num_features: int = 1,
        context_length: int | None = None,
        prediction_length: int | None = None,
        lags: Sequence[int] | str | None = None,
        num_diffusion_steps: int = 100,
        num_covariates: int = 0,
        lower: float | None = None,
        hidden_size: int | None = None,
        num_blocks: int | None = None,
        state_size: int | None = None,
        embedding_size: int | None = None,
        kernel: str = "nplr-legs",
        init_skip: bool = False,
        beta_end: float = 0.1,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        batches_per_epoch: int = 128,
        preset: str = "paper",
    ) -> None:
        lags = lags.tolist() if isinstance(lags, np.ndarray) else lags
        given = {
            name: value for name, value in locals().items() if name not in ("self", "preset", "__class__")
        }
        super().__init__()
        self.save_hyperparameters(expand(given, preset))
        hparams = self.hparams
        num_channels = num_features * (1 + len(hparams.lags))
        self.schedule = NoiseSchedule.linear(num_diffusion_steps, beta_end=beta_end)
        self.network = S4Backbone(
            num_channels,
            length=self.window_length,
            hidden_size=hparams.hidden_size,
            num_blocks=hparams.num_blocks,
            state_size=hparams.state_size,
            embedding_size=hparams.embedding_size,
            num_covariates=num_covariates,
            kernel=kernel,
            init_skip=init_skip,
        )
        self.covariate_scaler = Standardizer(num_covariates) if num_covariates else None

    @property
    def window_length(self) -> int:
        """Steps of context and forecast together, L."""
        return self.hparams.context_length + self.hparams.prediction_length

    @property
    def prior_length(self) -> int:
        """Steps before the context that the lags reach back to."""
        return max(self.hparams.lags, default=0)

    # Training -------------------------------------------------------------------------------------------

    def datamodule(self, data: xr.Dataset, val: xr.Dataset | None = None) -> pl.LightningDataModule:
        for part in (data, val):
            if part is not None:
                self._check(part)
        if val is not None:
            check_alike(val, describe(data), "the validation data")
        return SequenceDataModule(
            data,
            length=self.prior_length + self.window_length,
            batch_size=self.hparams.batch_size,
            batches_per_epoch=self.hparams.batches_per_epoch,
            val=val,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)

    def on_fit_start(self) -> None:
        if self.covariate_scaler is not None and self.history is None:
            data = self.trainer.datamodule.data
            self.covariate_scaler.fit(torch.from_numpy(np.asarray(data[COVARIATES].values, dtype=np.float64)))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        r"""Mean squared error of the predicted noise, over observed cells.

        .. math::
            E \left| \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t} \epsilon,\,
            t) \right|^2
        """
        length, wanted = batch["target"].shape[1], self.prior_length + self.window_length
        if length != wanted:
            raise ValueError(
                f"the batch has windows of {length} steps, this model needs {wanted} (lags, context and "
                f"forecast); use model.datamodule(data) or SequenceDataModule(data, length={wanted})."
            )
        windows = self._windows(batch["target"].to(self.dtype), batch["observed"])
        step = torch.randint(self.hparams.num_diffusion_steps, (len(windows.values),), device=self.device)
        noise = torch.randn_like(windows.values)
        covariates = None
        if self.covariate_scaler is not None:
            covariates = self._standardise(batch[COVARIATES])[:, self.prior_length :]
        noised = self.schedule.add_noise(windows.values, step, noise)
        mask = windows.observed.to(noised.dtype)

        def squared_error(predicted: Tensor, rows: slice) -> Tensor:
            return ((predicted - noise[rows]).square() * mask[rows]).sum()

        total = self.network.sum_over_windows(squared_error, noised, step, covariates)
        return {"loss": total / mask.sum().clamp(min=1)}

    # Verbs ----------------------------------------------------------------------------------------------

    def forecast(
        self,
        context: xr.Dataset,
        *,
        num_samples: int = 100,
        seed: int | None = None,
        guidance: str | None = "quantile",
        guidance_scale: float | None = None,
        guidance_point: str = "proposal",
        sampler: str = "ddpm",
        num_steps: int | None = None,
        future_covariates: xr.DataArray | None = None,
        trajectory_steps: Sequence[int] = (),
        batch_size: int | None = None,
        progress: bool = True,
    ) -> xr.Dataset:
        """Sample paths of the steps after ``context``.

        The noise of a path is a function of seed, series label and sample index: results do not depend on
        ``batch_size``, on the order of series or on which others are present.

        Args:
            context: Sequences; their last ``max(lags) + context_length`` steps are used. Missing values, a
                short history included, are drawn along with the future. The scale of a series is the mean
                absolute value of the ``context_length`` steps up to its last observed one, so that a series
                that ended earlier is forecast from the level it had.
            num_samples: Paths per series. With quantile guidance path k aims at level k / (num_samples + 1).
            seed: Seed of the draws; ``None`` takes one from the ambient stream.
            guidance: ``"quantile"``, ``"square"``, or ``None``: draws that ignore the context.
            guidance_scale: Strength; ``None`` is 4.0 for quantile and 0.1 for square guidance, in proportion
                less with fewer steps.
            guidance_point: ``"proposal"`` as published, or ``"xt"`` as in the paper and some 30 % cheaper;
                DDIM always guides at ``"xt"``.
            sampler: ``"ddpm"`` or the deterministic ``"ddim"``.
            num_steps: Use fewer diffusion steps, a divisor of their number.
            future_covariates: Covariates of the forecast steps, (series, time, covariate), if the model uses
                them.
            trajectory_steps: Diffusion steps after which to keep the state of the forecast steps, as
                ``trajectory``.
            batch_size: Paths drawn at a time; ``None`` chooses what is fast.
            progress: Show a progress bar.

        Returns:
            ``target (sample, series, time, feature)`` in the units of the data, time continuing the context;
            with ``trajectory_steps`` also ``trajectory (step, sample, series, time, feature)``.

        Raises:
            ValueError: If data or arguments do not fit the model.
            NonFiniteError: If the guided chain diverges.
            NotFittedError: If the model was neither fitted nor loaded.

        Warns:
            EarlyEndWarning: If a series ends more than ``prediction_length`` steps before the data do.
        """
        self.require_fitted()
        self._check(context)
        check_alike(context, self.data_info)
        options = self._options(
            num_samples,
            seed,
            guidance,
            guidance_scale,
            guidance_point,
            sampler,
            num_steps,
            batch_size,
            progress,
        )
        steps = _check_trajectory(trajectory_steps, self.schedule.reverse_steps(num_steps))
        warn_of_early_ends(context, self.hparams.prediction_length)
        horizon, end = self.hparams.prediction_length, context.sizes[TIME]
        start = end - self.hparams.context_length
        target, observed = to_tensors(context, self.dtype)
        _check_observed(context, observed)
        scale = MeanScaler.scale(*last_steps(target, observed, self.hparams.context_length))
        target, observed = (cut(v, start - self.prior_length, end + horizon) for v in (target, observed))
        labels = [(label,) for label in context[SERIES].values.tolist()]
        covariates = self._covariates(context, future_covariates, horizon)
        if covariates is not None:
            covariates = cut(covariates, start, end + horizon)
        draws, states = self._draw(target, observed, covariates, labels, scale, options, horizon, steps)
        result = forecast_dataset(
            draws.numpy(), context, model=type(self).__name__, seed=options.seed, attrs=options.provenance()
        )
        if steps:
            dims = ("step", SAMPLE, SERIES, TIME, FEATURE)
            result = result.assign_coords(step=list(steps))
            result["trajectory"] = (dims, states.numpy(), dict(result[TARGET].attrs))
        return result

    def infer(
        self,
        data: xr.Dataset,
        *,
        num_samples: int = 100,
        seed: int | None = None,
        guidance: str = "quantile",
        guidance_scale: float | None = None,
        guidance_point: str = "proposal",
        sampler: str = "ddpm",
        num_steps: int | None = None,
        batch_size: int | None = None,
        progress: bool = True,
    ) -> xr.Dataset:
        """Draw the missing values of ``data`` given the observed ones, before and after each gap.

        A long series is covered by windows that overlap by half; a value is taken from the window in which it
        lies nearest to the middle. Windows without a gap are not run. Steps before a series begins or after
        it ends stay missing.

        Args:
            data: Sequences with missing values (``observed`` false).
            num_samples: Draws per missing value.
            seed: Seed of the draws; ``None`` takes one from the ambient stream.
            guidance: ``"quantile"`` or ``"square"``.
            guidance_scale: Strength; ``None`` is 4.0 for quantile and 0.1 for square guidance, in proportion
                less with fewer steps.
            guidance_point: ``"proposal"`` or ``"xt"``, see :meth:`forecast`.
            sampler: ``"ddpm"`` or ``"ddim"``.
            num_steps: Use fewer diffusion steps, a divisor of their number.
            batch_size: Paths drawn at a time; ``None`` chooses what is fast.
            progress: Show a progress bar.

        Returns:
            ``target (sample, series, time, feature)`` on the time steps of ``data``, in its units: observed
            values as they are, drawn ones in the gaps; and ``observed``, the mask of the data.

        Raises:
            ValueError: If data or arguments do not fit the model.
            NonFiniteError: If the guided chain diverges.
            NotFittedError: If the model was neither fitted nor loaded.
        """
        self.require_fitted()
        self._check(data)
        check_alike(data, self.data_info, "the data")
        if guidance is None:
            raise ValueError("infer needs guidance='quantile' or 'square'; without data use sample().")
        options = self._options(
            num_samples,
            seed,
            guidance,
            guidance_scale,
            guidance_point,
            sampler,
            num_steps,
            batch_size,
            progress,
        )
        target, observed = to_tensors(data, self.dtype)
        _check_observed(data, observed)
        covariates = self._covariates(data, None, 0)
        missing, names = ~observed.numpy(), data[SERIES].values.tolist()
        known = data[TARGET].values
        known = known.astype(np.result_type(known.dtype, np.float32), copy=False)  # draws between counts
        filled = np.repeat(known[None], num_samples, axis=0)
        tiles = cover_gaps(observed.numpy(), self.window_length)
        if tiles:
            stretches = [(tile.series, tile.start, tile.start + self.window_length) for tile in tiles]
            values, mask = (
                torch.stack([cut(v[m], start - self.prior_length, stop) for m, start, stop in stretches])
                for v in (target, observed)
            )
            labels = [(names[tile.series], tile.offset) for tile in tiles]
            if covariates is not None:
                covariates = torch.stack([cut(covariates[m], start, stop) for m, start, stop in stretches])
            length = self.hparams.context_length
            scale = torch.cat(
                [
                    MeanScaler.scale(*last_steps(target[[m]], observed[[m]], length, max(start + length, 1)))
                    for m, start, _ in stretches
                ]
            )
            draws, _ = self._draw(values, mask, covariates, labels, scale, options, self.window_length)
            for tile, draw in zip(tiles, draws.numpy().swapaxes(0, 1), strict=True):  # (S, L, C)
                gaps = missing[tile.series, tile.first : tile.stop]
                cells = filled[:, tile.series, tile.first : tile.stop]
                cells[:, gaps] = draw[:, tile.first - tile.start : tile.stop - tile.start][:, gaps]
        result = data[[TARGET]].copy()
        result[TARGET] = ((SAMPLE, SERIES, TIME, FEATURE), filled, dict(data[TARGET].attrs))
        result[OBSERVED] = ((SERIES, TIME, FEATURE), ~missing)
        return result.assign_attrs(**self._provenance(options))

    def sample(
        self,
        num_samples: int,
        *,
        seed: int | None = None,
        sampler: str = "ddpm",
        num_steps: int | None = None,
        covariates: xr.DataArray | None = None,
        batch_size: int | None = None,
        progress: bool = True,
    ) -> xr.Dataset:
        """Draw windows from the model, with no data.

        Args:
            num_samples: Number of windows.
            seed: Seed of the draws; ``None`` takes one from the ambient stream.
            sampler: ``"ddpm"`` or the deterministic ``"ddim"``.
            num_steps: Use fewer diffusion steps, a divisor of their number.
            covariates: Covariates of the window, (time, covariate), if the model uses them.
            batch_size: Windows drawn at a time; ``None`` chooses what is fast.
            progress: Show a progress bar.

        Returns:
            ``target (sample, time, feature)`` in scaled units: the model knows windows whose context has a
            mean absolute value of about one. ``time`` counts steps from the start of the window.

        Raises:
            ValueError: If an argument does not fit the model.
        """
        self.require_fitted()
        options = self._options(
            num_samples, seed, None, None, "proposal", sampler, num_steps, batch_size, progress
        )
        known = self._window_covariates(covariates)
        empty = torch.zeros(
            1, self.window_length, self.network.num_channels, dtype=self.dtype, device=self.device
        )
        draws, _ = draw_paths(
            self._frozen(),
            self.schedule,
            empty,
            empty.bool(),
            [("sample",)],
            options,
            covariates=known,
            keep=(slice(None), slice(self.hparams.num_features)),
        )
        features = (self.data_info or {}).get("features") or [
            f"feature_{c}" for c in range(self.hparams.num_features)
        ]
        return xr.Dataset(
            {TARGET: ((SAMPLE, TIME, FEATURE), draws[:, 0].numpy(), {"units": "scaled"})},
            coords={
                SAMPLE: np.arange(num_samples),
                TIME: np.arange(self.window_length),
                FEATURE: list(features),
            },
            attrs=self._provenance(options),
        )

    # Inside ---------------------------------------------------------------------------------------------

    @torch.inference_mode(False)  # guidance takes gradients; Lightning validates in inference mode
    def _draw(
        self,
        target: Tensor,
        observed: Tensor,
        covariates: Tensor | None,
        labels: Sequence[tuple[object, ...]],
        scale: Tensor,
        options: PathOptions,
        num_kept: int,
        trajectory_steps: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor]:
        """Draws of the last ``num_kept`` steps, (S, M, num_kept, C), and states, in the data's units."""
        windows = self._windows(*(part.to(self.device) for part in (target, observed, scale)))
        draws, states = draw_paths(
            self._frozen(),
            self.schedule,
            windows.values,
            windows.observed,
            labels,
            options,
            covariates=covariates,
            keep=(slice(self.window_length - num_kept, None), slice(self.hparams.num_features)),
            trajectory_steps=trajectory_steps,
        )
        draws = draws * scale
        if not bool(torch.isfinite(draws).all()):
            raise ValueError(
                f"draws leave the numbers that {self.dtype} holds: the data reach {float(scale.max()):.3g}; "
                "change their unit, for instance data.assign(target=data['target'] / 1e30)."
            )
        if self.hparams.lower is not None:
            draws = draws.clamp(min=self.hparams.lower)
        return draws, states * scale

    def _context_scale(self, target: Tensor, observed: Tensor) -> Tensor:
        """Scale of stretches (B, P + L, C) by their context, (B, 1, C), or by all where that is empty."""
        within = slice(self.prior_length, self.prior_length + self.hparams.context_length)
        scale = MeanScaler.scale(target[:, within], observed[:, within])
        empty = ~observed[:, within].any(1, keepdim=True)
        if bool(empty.any()):
            scale = torch.where(empty, MeanScaler.scale(target, observed), scale)
        return scale

    def _windows(self, target: Tensor, observed: Tensor, scale: Tensor | None = None) -> Windows:
        """Divide stretches (B, P + L, C) by their scale (B, 1, C), that of the context, and add the lags."""
        prior = self.prior_length
        scale = self._context_scale(target, observed) if scale is None else scale
        lags = (0, *self.hparams.lags)
        values, mask = (
            torch.cat([v[:, prior - lag : prior - lag + self.window_length] for lag in lags], dim=-1)
            for v in (target / scale, observed)
        )
        return Windows(torch.where(mask, values, torch.zeros_like(values)), mask)

    def _provenance(self, options: PathOptions) -> dict[str, Any]:
        return provenance(type(self).__name__, options.seed) | options.provenance()

    def _frozen(self) -> Callable[..., Tensor]:
        return FrozenBackbone(self.network, self.hparams.num_diffusion_steps)

    def _options(
        self,
        num_samples: int,
        seed: int | None,
        guidance: str | None,
        guidance_scale: float | None,
        guidance_point: str,
        sampler: str,
        num_steps: int | None,
        batch_size: int | None,
        progress: bool,
    ) -> PathOptions:
        if batch_size is None:
            batch_size = self.network.windows_at_a_time(self.device)
        share = len(self.schedule.reverse_steps(num_steps)) / self.hparams.num_diffusion_steps
        if guidance_scale is None and guidance in GUIDANCE_SCALES:
            # A longer step guides further: at the full scale it would overshoot the observations.
            guidance_scale = GUIDANCE_SCALES[guidance] * share
        return PathOptions(
            num_samples,
            ambient_seed(seed),
            guidance,
            guidance_scale,
            guidance_point,
            sampler,
            num_steps,
            batch_size,
            progress,
        )

    def _check(self, data: xr.Dataset) -> None:
        check_sequences(data)
        features = data.sizes[FEATURE]
        covariates = data.sizes[COVARIATE] if COVARIATES in data else 0  # labels alone are none
        if features != self.hparams.num_features:
            raise ValueError(
                f"the data have {features} feature(s) {data[FEATURE].values.tolist()} but the model was "
                f"built with num_features={self.hparams.num_features}; build it with num_features={features} "
                "or select features with data.sel(feature=[...])."
            )
        if covariates != self.hparams.num_covariates:
            remedy = (
                "drop them: data.drop_vars('covariates')" if covariates else "read them: covariates=[...]"
            )
            raise ValueError(
                f"the data have {covariates} covariate(s) but the model was built with "
                f"num_covariates={self.hparams.num_covariates}; build it with num_covariates={covariates}, "
                f"or {remedy}."
            )

    def _covariates(self, data: xr.Dataset, future: xr.DataArray | None, num_future: int) -> Tensor | None:
        """Standardised covariates of ``data`` and of H steps after it, (M, T + H, F)."""
        if self.covariate_scaler is None:
            if future is not None:
                raise ValueError("this model takes no covariates: leave out future_covariates.")
            return None
        values = known_covariates(data, future, num_future)
        return self._standardise(torch.as_tensor(values, dtype=self.dtype))

    def _window_covariates(self, covariates: xr.DataArray | None) -> Tensor | None:
        """Standardised covariates of one window, (1, L, F)."""
        if self.covariate_scaler is None:
            if covariates is not None:
                raise ValueError("this model takes no covariates: leave them out.")
            return None
        values = window_covariates(covariates, self.window_length, self.hparams.num_covariates)
        return self._standardise(torch.as_tensor(values, dtype=self.dtype))[None]

    def _standardise(self, covariates: Tensor) -> Tensor:
        assert self.covariate_scaler is not None  # callers have looked
        return self.covariate_scaler(covariates.to(device=self.device, dtype=self.dtype))


def _check_observed(data: xr.Dataset, observed: Tensor) -> None:
    """Refuse a series with a feature that is never observed: its scale is unknown."""
    never = ~observed.any(dim=1)
    if bool(never.any()):
        series, feature = (int(i) for i in never.nonzero()[0])
        label = data[SERIES].values.tolist()[series]
        raise ValueError(
            f"series {label!r} has no observed value of {data[FEATURE].values.tolist()[feature]!r} in the "
            f"data, so that its scale is unknown; leave it out: data.drop_sel(series=[{label!r}])."
        )


def _check_trajectory(steps: Sequence[int], reverse: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    visited = {step for step, _ in reverse}
    if isinstance(steps, int):
        raise ValueError(f"trajectory_steps must be a list of diffusion steps, got {steps}; try [{steps}].")
    unknown = [step for step in steps if step not in visited]
    if unknown:
        raise ValueError(f"trajectory_steps must be among the steps used, {sorted(visited)}, got {unknown}.")
    return tuple(steps)
