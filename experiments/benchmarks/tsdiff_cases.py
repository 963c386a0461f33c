"""What is timed of TSDiff: steps of the default hourly model, in the sizes of the paper.

The model is ``TSDiff(lags="hourly")``: 360 steps, 11 channels, batches of 64 windows, 100 sample paths. Its
weights are those it begins with; the cost of a step does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from seqdyn import datasets
from seqdyn.diffusion.denoiser import Denoiser
from seqdyn.diffusion.guidance import QuantileGuidance
from seqdyn.diffusion.samplers import ddpm
from seqdyn.diffusion.schedule import NoiseSchedule
from seqdyn.models import TSDiff
from seqdyn.nn.backbone import FrozenBackbone
from seqdyn.rng import NoiseSource

__all__ = ["CASES", "profile", "reference"]

NUM_PATHS = 100
STEP = 50  # any step but the last costs the same
MATMUL_SIZE = 1024

Call = Callable[[], object]


class OneStep(NoiseSchedule):
    """A schedule of whose reverse run one step is taken."""

    def reverse_steps(self, num_steps: int | None = None) -> list[tuple[int, int]]:
        return [(STEP, STEP - 1)]


def reference() -> Call:
    """A product of two float32 matrices of 1024 x 1024, without the making of the result."""
    a, b, out = (torch.randn(MATMUL_SIZE, MATMUL_SIZE) for _ in range(3))
    return lambda: torch.mm(a, b, out=out)


def training_step() -> Call:
    """Loss of a batch of raw windows, gradient, clipping and Adam's step."""
    model = _model().train()
    batch = next(iter(model.datamodule(datasets.load("nyc_flights")).train_dataloader()))
    optimizer = model.configure_optimizers()

    def step() -> None:
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), model.gradient_clip_val)
        optimizer.step()

    return step


def denoising_step() -> Call:
    """A reverse step of 100 windows without guidance."""
    return _reverse_step(None)


def guided_step() -> Call:
    """A reverse step of 100 paths, the gradient taken at the proposal: two passes forward, one backward."""
    return _reverse_step("proposal")


def guided_step_xt() -> Call:
    """A reverse step of 100 paths, the gradient taken at the current state: one pass forward and back."""
    return _reverse_step("xt")


def s4_kernel() -> Call:
    """The kernel of one S4 layer of the model."""
    layer = _model().network.blocks[0].s4
    return torch.no_grad()(layer.kernel)


def s4_kernel_gradient() -> Call:
    """The kernel of one S4 layer, and the gradient with respect to its parameters."""
    layer = _model().network.blocks[0].s4
    with torch.no_grad():
        cotangent = torch.randn_like(layer.kernel())
    inputs = [layer.log_neg_real, layer.imag, layer.output, layer.log_dt, layer.input, layer.low_rank]
    return lambda: torch.autograd.grad(layer.kernel(), inputs, cotangent)


CASES: dict[str, Callable[[], Call]] = {
    "training-step": training_step,
    "denoising-step": denoising_step,
    "guided-step": guided_step,
    "guided-step-xt": guided_step_xt,
    "s4-kernel": s4_kernel,
    "s4-kernel-gradient": s4_kernel_gradient,
}


def profile(call: Call, *, calls: int = 5) -> str:
    """The most expensive operations of some calls, after as many that do not count."""
    for _ in range(calls):
        call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as record:
        for _ in range(calls):
            with torch.profiler.record_function("outside of operations"):
                call()
    averages = record.key_averages()
    return averages.table(sort_by="self_cpu_time_total", row_limit=16, max_name_column_width=40)


def _draw(noise: NoiseSource, step: int, like: torch.Tensor) -> torch.Tensor:
    with torch.profiler.record_function("noise"):  # drawn by NumPy, which the profiler does not see
        return noise.normal(step, like)


def _model() -> TSDiff:
    torch.manual_seed(0)
    return TSDiff(lags="hourly").eval()


def _reverse_step(point: str | None) -> Call:
    """One step of all paths as ``forecast`` takes it: by the sampler, in batches that suit the cache."""
    model = _model()
    denoiser = Denoiser(
        FrozenBackbone(model.network, model.schedule.num_diffusion_steps), OneStep(model.schedule.beta)
    )
    x = torch.randn(NUM_PATHS, model.window_length, model.network.num_channels)
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[:, model.hparams.context_length :, 0] = False  # lags of a day and more are all known
    target, levels = torch.randn_like(x), (torch.arange(NUM_PATHS) + 1) / (NUM_PATHS + 1)
    batch_size = model.network.windows_at_a_time(torch.device("cpu"))
    batches = []
    for start in range(0, NUM_PATHS, batch_size):
        rows = slice(start, min(start + batch_size, NUM_PATHS))
        guidance = None
        if point is not None:
            guidance = QuantileGuidance(denoiser, target[rows], observed[rows], 4.0, levels[rows], point)
        batches.append(
            (x[rows], guidance, NoiseSource(0, [("series", k) for k in range(rows.start, rows.stop)]))
        )

    def step() -> None:
        for part, guidance, noise in batches:
            ddpm(denoiser, part, guidance, draw=lambda step, like, noise=noise: _draw(noise, step, like))

    return step
