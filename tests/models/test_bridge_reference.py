"""References of a user's own: tried out when a bridge is built and before its fit begins."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seqdyn
from seqdyn.data import stack_snapshots
from seqdyn.errors import ConvergenceWarning
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


# The record of its fit
# ------------------------------------------------------------------------------------------------------


def three_clouds() -> Any:
    draw = np.random.default_rng(0)
    return stack_snapshots([draw.normal(shift, 0.3, (8, 2)) for shift in (1, 1.2, 1.5)], times=[0, 1, 2])


def test_the_trace_begins_where_the_drift_began(tmp_path: Path) -> None:
    model = build(Turn()).fit(three_clouds(), max_epochs=2, **FIT)
    model.save(tmp_path / "model")
    loaded = seqdyn.load(tmp_path / "model", reference=Turn())
    loaded.fit(three_clouds(), max_epochs=1, **FIT)

    for found, count in ((model, 3), (loaded, 4)):
        trace = found.reference_parameters.trace
        np.testing.assert_allclose(trace[0], [0.2, 0.1], rtol=1e-6)
        assert trace.shape == (count, 2)
        assert np.isfinite(trace).all()
    assert seqdyn.plot.reference_parameters(model.reference_parameters)[0].lines[0].get_xdata()[0] == 0


def test_the_trace_of_an_estimated_volatility_begins_at_its_first_guess() -> None:
    model = SchrodingerBridge(2, "estimate", reference=Turn(), num_steps=6, num_paths=10, num_simulations=0)
    found = model.fit(three_clouds(), max_epochs=1, **FIT).reference_parameters

    assert found.trace.shape == (2, 3)
    assert float(found.trace[0, 2]) > 0
    assert float(found.trace[0, 2]) != float(found.trace[1, 2])


def test_an_interrupted_fit_knows_its_start(tmp_path: Path) -> None:
    data, options = three_clouds(), FIT | {"run_dir": tmp_path / "run"}
    build(Turn()).fit(data, max_epochs=1, **options)
    found = build(Turn()).fit(data, max_epochs=2, resume=True, **options)

    np.testing.assert_allclose(found.reference_parameters.trace[0], [0.2, 0.1], rtol=1e-6)


def test_a_fit_that_did_not_come_to_rest_warns_once() -> None:
    with pytest.warns(ConvergenceWarning, match=r"not at rest after 2 refinements; fit\(max_epochs") as found:
        model = build(Turn()).fit(three_clouds(), max_epochs=2, **FIT)

    assert sum("not at rest" in str(warning.message) for warning in found) == 1
    assert model.convergence.attrs["at_rest"] == 0


def test_a_fit_that_came_to_rest_and_fits_within_others_do_not_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = build(drifts.Linear(2)).fit(three_clouds(), max_epochs=30, **FIT)
        model.leave_one_out(three_clouds(), max_epochs=1, num_samples=10, seed=0, progress=False)

    model.save(tmp_path / "model")
    assert model.convergence.attrs["at_rest"] == 1
    assert seqdyn.load(tmp_path / "model", reference=drifts.Linear(2)).convergence.attrs["at_rest"] == 1


def test_a_reference_saved_by_its_name_is_not_handed_in(tmp_path: Path) -> None:
    SchrodingerBridge(2, 0.3, reference="Rotation").fit(three_clouds(), max_epochs=1, **FIT).save(
        tmp_path / "m"
    )

    with pytest.raises(ValueError, match="knows its own reference, 'Rotation'; leave reference= out"):
        seqdyn.load(tmp_path / "m", reference=Turn())


def test_weights_from_before_the_start_was_kept_are_taken() -> None:
    model = build(Turn()).fit(three_clouds(), max_epochs=1, **FIT)
    older = {name: value for name, value in model.state_dict().items() if name != "start_values"}

    fresh = build(Turn())
    fresh.load_state_dict(older)

    assert torch.equal(fresh.process.drift.omega, model.process.drift.omega)
