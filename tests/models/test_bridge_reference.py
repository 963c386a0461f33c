"""References of a user's own: tried out when a bridge is built and before its fit begins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqdyn.data import stack_snapshots
from seqdyn.models import SchrodingerBridge
from seqdyn.models.bridge_reference import check_reference
from seqdyn.rng import fork_rng
from seqdyn.sde import drifts
from seqdyn.sde.lamperti import InLogCoordinates

FIT: dict[str, Any] = {"seed": 0, "enable_progress_bar": False, "accelerator": "cpu"}


class Turn(nn.Module):
    """A rotation, with the way in which omega enters left open."""

    def __init__(self, velocity: Callable[[nn.Module, Tensor, Any], Tensor] | None = None) -> None:
        super().__init__()
        self.omega = nn.Parameter(torch.tensor(0.2))
        self.decay = nn.Parameter(torch.tensor(0.1))
        self.velocity = velocity

    def forward(self, x: Tensor, t: Any) -> Tensor:
        if self.velocity is not None:
            return self.velocity(self, x, t)
        turned = torch.stack([x[..., 1], -x[..., 0]], dim=-1)
        return self.omega * turned - self.decay * x


def without_gradient(drift: Any, x: Tensor, t: Any) -> Tensor:
    with torch.no_grad():
        return drift.omega * x + drift.decay


class NotSetUp(nn.Module):
    def __init__(self) -> None:
        self.rate = 1.0


def build(reference: nn.Module, **options: Any) -> SchrodingerBridge:
    return SchrodingerBridge(2, 0.3, reference=reference, num_steps=6, num_paths=10, **options)


def rows(drift: Any, x: Tensor, t: Any) -> Tensor:
    return torch.stack([drift.omega * x[:, 1], -drift.decay * x[:, 0]], dim=1)


@pytest.mark.parametrize(
    ("velocity", "message"),
    [
        (rows, r"\(2, 3, 2\).*index features with x\[..., 0\] and stack with dim=-1"),
        (lambda d, x, t: float(d.omega) * x + d.decay, "parameter 'omega' does not influence the drift Turn"),
        (lambda d, x, t: d.omega.item() * x + d.decay, "'omega' does not influence .*do not use float"),
        (lambda d, x, t: d.omega * x + d.decay.detach(), "'decay' does not influence"),
        (without_gradient, r"'omega' does not influence .*requires_grad_\(False\) to fix it on purpose"),
        (lambda d, x, t: d.decay * x, "'omega' does not influence"),
        (lambda d, x, t: d.omega * np.exp(x) - d.decay, "use torch.exp and so on, not numpy"),
        (lambda d, x, t: np.exp(d.omega) * x - d.decay, "use torch.exp and so on, not numpy"),
        (lambda d, x, t: d.omega * x if x[0, 0] > 0 else d.decay * x, r"use torch.where\(condition"),
    ],
)  # fmt: skip
def test_a_drift_that_a_fit_cannot_take_is_refused_with_what_to_write(velocity: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Turn(velocity))


def test_a_parameter_without_influence_may_be_frozen() -> None:
    drift = Turn(lambda d, x, t: float(d.omega) * x + d.decay)
    drift.omega.requires_grad_(False)

    build(drift)


def test_a_parameter_that_has_no_slope_yet_is_taken() -> None:
    drift = Turn(lambda d, x, t: 0 * d.omega * x + d.decay)

    build(drift)


def test_a_term_of_a_sum_is_named() -> None:
    silent = Turn(lambda d, x, t: d.omega * x)

    with pytest.raises(ValueError, match="parameter 'terms.1.decay' does not influence the drift Sum"):
        build(drifts.Sum(drifts.Linear(2), silent))


def test_a_module_that_was_not_set_up_is_told() -> None:
    with pytest.raises(ValueError, match=r"NotSetUp was not set up .*super\(\).__init__\(\)"):
        build(NotSetUp())


@pytest.mark.parametrize("coordinates", ["raw", "log"])
@pytest.mark.parametrize(
    "make",
    [
        Turn,
        drifts.Zero,
        drifts.LotkaVolterra,
        drifts.Rotation,
        drifts.Vortex,
        lambda: drifts.Linear(2),
        lambda: drifts.OrnsteinUhlenbeck(2),
        lambda: drifts.QuadraticPotential(2),
        lambda: drifts.GradientField(2, (4,), ridge=0.1),
        lambda: drifts.MLPDrift(2, (4,)),
        lambda: drifts.MLPDrift(2, (4,), time_input=True),
        lambda: drifts.Sum(drifts.LotkaVolterra(), drifts.MLPDrift(2, (4,), time_input=True)),
        lambda: InLogCoordinates(drifts.LotkaVolterra(), 0.2),
        lambda: drifts.Sum(drifts.Rotation()),
    ],
)
def test_all_families_pass(make: Callable[[], nn.Module], coordinates: str) -> None:
    build(make(), coordinates=coordinates)


def test_three_genes_pass() -> None:
    SchrodingerBridge(3, 0.3, reference="Repressilator")


def test_the_trial_leaves_the_drift_and_the_random_state_alone() -> None:
    class Noisy(Turn):
        def __init__(self) -> None:
            super().__init__(lambda d, x, t: d.count.add_(1) * d.omega * x + d.decay * torch.rand(()))
            self.register_buffer("count", torch.zeros(()))

    with fork_rng(3):
        drift, state = Noisy().double(), torch.get_rng_state()
        check_reference(drift, 2, build(drifts.Zero()).hparams)

        assert torch.equal(state, torch.get_rng_state())
    assert float(drift.count) == 0
    assert all(p.grad is None for p in drift.parameters())


# Where the data are
# ------------------------------------------------------------------------------------------------------


def test_a_drift_that_is_not_finite_at_the_data_is_refused() -> None:
    draw = np.random.default_rng(0)
    data = stack_snapshots([draw.normal(5, 0.1, (6, 2)), draw.normal(4, 0.1, (6, 2))], times=[0, 1])
    drift = Turn(lambda d, x, t: (x - 4.5).sqrt() * d.omega + d.decay)

    with pytest.raises(ValueError, match=r"the drift is \[nan, nan\] at state \[.*\], time 1, a particle"):
        build(drift).fit(data, max_epochs=1, **FIT)


def test_in_logarithms_a_drift_sees_positive_states() -> None:
    draw = np.random.default_rng(0)
    data = stack_snapshots([draw.uniform(0.1, 0.5, (6, 2)), draw.uniform(0.2, 0.6, (6, 2))], times=[0, 1])
    drift = Turn(lambda d, x, t: x.sqrt() * d.omega - d.decay * x.log())

    assert math.isfinite(build(drift, coordinates="log").fit(data, max_epochs=1, **FIT).divergence)


# Lower bounds
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"omga": 0.0}, r"names 'omga', but its parameters are \['decay', 'omega'\]"),
        ([0.0], r"must map names of parameters to numbers, got \[0.0\]"),
        ({"omega": "0"}, "must map names of parameters to numbers"),
        ({"omega": 1.0}, "omega of Bounded must be at least 1, its lower bound, but starts at 0.2"),
    ],
)
def test_lower_bounds_are_checked(bounds: Any, message: str) -> None:
    class Bounded(Turn):
        lower_bounds: ClassVar[Any] = bounds

    with pytest.raises(ValueError, match=message):
        build(Bounded())
    with pytest.raises(ValueError, match=message):
        build(drifts.Sum(drifts.Zero(), Bounded()))
