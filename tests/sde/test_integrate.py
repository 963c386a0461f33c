"""Simulation: laws against closed forms, orders of the methods, steps, seeds, and what is refused."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

import seqdyn.sde
from seqdyn.errors import NonFiniteError
from seqdyn.rng import fork_rng
from seqdyn.sde import simulate
from seqdyn.sde.drifts import Linear, LotkaVolterra
from seqdyn.sde.integrate import advance, heun, steps_between

MATRIX = np.array([[-1.0, 0.8], [-0.5, -0.3]])
OFFSET = np.array([0.4, -0.2])
SIGMA = np.array([[0.5, 0.0], [0.3, 0.4]])
METHODS = ("heun", "euler", "milstein", "srk")


def ornstein_uhlenbeck() -> Linear:
    drift = Linear(2)
    with torch.no_grad():
        drift.matrix.copy_(torch.from_numpy(MATRIX))
        drift.offset.copy_(torch.from_numpy(OFFSET))
    return drift


def exact_law(x0: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the Ornstein-Uhlenbeck process from a point, by block exponentials."""
    block = np.zeros((4, 4))
    block[:2, :2], block[:2, 2:], block[2:, 2:] = -MATRIX, SIGMA @ SIGMA.T, MATRIX.T
    found = expm(block * time)
    flow = found[2:, 2:].T
    affine = np.zeros((3, 3))
    affine[:2, :2], affine[:2, 2] = MATRIX, OFFSET
    mean = expm(affine * time) @ np.append(x0, 1.0)
    return mean[:2], flow @ found[:2, 2:]


def still(x: Tensor, t: Any) -> Tensor:
    return torch.zeros_like(x)


# -- laws ---------------------------------------------------------------------------------------------


# 20,000 paths at two times. Means: chi-square of 2 degrees below 25, false-alarm rate 4e-6 each. Covariances:
# 5 standard errors of each entry, 6e-7 each. With 16 checks of the eight laws below 1e-4 in all, fixed seeds.
@pytest.mark.parametrize("method", METHODS)
def test_own_steps_and_torchsde_have_the_law_of_the_ornstein_uhlenbeck_process(method: str) -> None:
    count, x0 = 20_000, np.array([2.0, -1.0])
    start = torch.from_numpy(x0).expand(count, 2)
    # Euler-Maruyama's error of the mean, of first order, must stay below the sampling error of 0.004.
    step_size = 0.002 if method in ("euler", "milstein") else 0.05

    paths = simulate(
        ornstein_uhlenbeck(), SIGMA, start, [0.0, 0.3, 1.0], step_size=step_size, method=method, seed=4
    )

    for index, time in ((1, 0.3), (2, 1.0)):
        mean, covariance = exact_law(x0, time)
        x = paths[:, index].numpy()
        shift = x.mean(axis=0) - mean
        assert count * shift @ np.linalg.solve(covariance, shift) < 25
        scale = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / count)
        assert (np.abs(np.cov(x.T) - covariance) < 5 * scale).all()


# The same for noise that depends on the state: dx = r x dt + s x dW has E x = x0 e^{rT} and
# Var x = x0² e^{2rT} (e^{s²T} - 1). 40,000 paths, 4 standard errors of three statistics: false-alarm rate
# 2e-4 a method, fixed seed (and torchsde draws the end of all methods' paths first: they share it).
@pytest.mark.parametrize("method", [None, "milstein", "srk", "euler"])
def test_noise_that_depends_on_the_state_is_that_of_ito(method: str | None) -> None:
    count, rate, sigma = 40_000, 0.4, 0.3

    x = simulate(
        lambda x, t: rate * x,
        lambda x, t: sigma * x,
        torch.full((count, 1), 2.0, dtype=torch.float64),
        [0.0, 1.0],
        step_size=0.01,
        method=method,
        seed=2,
    )[:, -1, 0].numpy()

    spread = 2 * math.exp(rate) * math.sqrt(math.expm1(sigma**2))
    # Stratonovich's reading would have the mean 2 exp(r + s²/2), 4.6 % or 30 standard errors higher.
    assert abs(x.mean() - 2 * math.exp(rate)) < 4 * spread / math.sqrt(count)
    logs = np.log(x)
    assert abs(logs.mean() - math.log(2) - rate + sigma**2 / 2) < 4 * sigma / math.sqrt(count)
    # A step of x (1 + r h + s dW) makes the logarithm's deviation smaller by 1 + r h, 0.4 % here.
    assert abs(logs.std() / sigma - 1) < 4 / math.sqrt(2 * count) + 0.004


@pytest.mark.parametrize(("method", "order"), [("euler", 0.5), ("milstein", 1.0), ("srk", 1.5)])
def test_the_strong_order_of_a_method_is_that_of_its_name(method: str, order: float) -> None:
    # dx = s x dW has x = exp(s W - s² t / 2); W itself is the path with volatility 1, seed and steps equal.
    def error(steps: int) -> float:
        def end(volatility: Callable[[Tensor, Any], Tensor]) -> Tensor:
            x0 = torch.ones(1000, 1, dtype=torch.float64)
            return simulate(still, volatility, x0, [0.0, 1.0], step_size=1 / steps, method=method, seed=5)[
                :, -1
            ]

        noise = end(lambda x, t: torch.ones_like(x)) - 1
        return float((end(lambda x, t: 0.8 * x) - (0.8 * noise - 0.32).exp()).square().mean().sqrt())

    assert math.log(error(8) / error(64), 8) == pytest.approx(order, abs=0.15)


def test_the_mean_of_heun_is_of_second_order_and_that_of_euler_of_first() -> None:
    x0, time = np.array([2.0, -1.0]), 1.0
    mean = torch.from_numpy(exact_law(x0, time)[0])

    def error(method: str, steps: int) -> float:
        x = simulate(ornstein_uhlenbeck(), 0.0, x0[None], [0.0, time], step_size=time / steps, method=method)
        return float((x[0, -1] - mean).norm())

    for method, order in (("heun", 2), ("euler", 1)):
        assert math.log2(error(method, 20) / error(method, 40)) == pytest.approx(order, abs=0.1)
    assert error("heun", 100) < 2e-5


def test_the_variance_of_heun_is_of_second_order_too() -> None:
    # One step maps x to p x + q noise; both factors are read off the step itself, so nothing is sampled.
    rate, sigma, time = 1.3, 0.7, 1.0

    def variance(steps: int) -> float:
        h = time / steps
        one = torch.ones(1, 1, dtype=torch.float64)
        p = float(heun(lambda x, t: -rate * x, one, 0.0, h))
        q = float(heun(lambda x, t: -rate * x, 0 * one, 0.0, h, one))
        found = 0.0
        for _ in range(steps):
            found = p**2 * found + q**2 * sigma**2 * h
        return found

    exact = sigma**2 * -math.expm1(-2 * rate * time) / (2 * rate)
    assert math.log2(abs(variance(20) - exact) / abs(variance(40) - exact)) == pytest.approx(2, abs=0.1)


def test_steps_of_simulate_are_those_of_heun_with_the_noise_in_the_predictor() -> None:
    drift, x = LotkaVolterra(1.0, 0.4, 0.4, 0.1), torch.tensor([[5.0, 4.0]], dtype=torch.float64)
    scale = torch.tensor([[0.2, 0.0], [0.1, 0.3]], dtype=torch.float64)

    with fork_rng(11):
        found = advance(drift, scale, x, 0.0, 0.25, 1)
    with fork_rng(11):
        noise = 0.5 * torch.randn(1, 2, dtype=torch.float64) @ scale.mT

    predictor = x + 0.25 * drift(x, 0.0) + noise
    torch.testing.assert_close(found, x + 0.125 * (drift(x, 0.0) + drift(predictor, 0.25)) + noise)


def test_a_drift_is_asked_at_the_right_times() -> None:
    # dx = 2 t dt has x(t) = x0 + t²; Heun integrates a linear function of time exactly.
    x0 = torch.zeros(3, 1, dtype=torch.float64)
    times = [0.5, 0.75, 2.0]

    for method in METHODS:
        seen: list[float] = []

        def drift(x: Tensor, t: Any, seen: list[float] = seen) -> Tensor:
            seen.append(float(t))
            return torch.full_like(x, 2 * float(t))

        x = simulate(drift, 0.0, x0, times, step_size=0.125, method=method)
        exact = torch.tensor([0.0, 0.75**2 - 0.25, 4 - 0.25], dtype=torch.float64)
        tolerance = 0.2 if method in ("euler", "milstein") else 1e-12
        torch.testing.assert_close(x[0, :, 0], exact, rtol=0, atol=tolerance)
        assert min(seen) == 0.5 and max(seen) <= 2.0


# -- steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "step_size", "count"),
    [
        (0.8, 1.1, 0.1, 3),  # (1.1 - 0.8) / 0.1 is 3.0000000000000004
        (0.0, 0.3, 0.1, 3),
        (0.0, 1.0, 0.1, 10),
        (0.6, 0.7, 0.1, 1),
        (0.0, 8.25, 0.75, 11),
        (1e6, 1e6 + 1, 0.01, 100),
        (0.0, 1.0, 0.3, 4),
        (0.0, 1.0, 5.0, 1),
        (0.0, 1e-9, 1.0, 1),
    ],
)
def test_steps_are_as_many_as_needed_and_rounding_adds_none(
    start: float, end: float, step_size: float, count: int
) -> None:
    assert steps_between(start, end, step_size) == count
    assert (end - start) / count <= step_size * (1 + 1e-8)


@pytest.mark.parametrize(("method", "per_step"), [("heun", 2), ("euler", 1), ("milstein", 1), ("srk", 3)])
def test_every_interval_has_its_own_number_of_steps(method: str, per_step: int) -> None:
    calls: list[float] = []

    def drift(x: Tensor, t: Any) -> Tensor:
        calls.append(float(t))
        return torch.zeros_like(x)

    x0 = torch.zeros(2, 1, dtype=torch.float32)
    simulate(drift, 0.1, x0, [0.8, 1.1, 3.2], step_size=0.1, method=method)
    checks = len(calls)
    calls.clear()
    simulate(drift, 0.1, x0, [0.8, 1.1, 1.2], step_size=0.1, method=method)

    # 3 + 21 steps against 3 + 1, apart from the evaluations that only look at shapes.
    assert checks - len(calls) == 20 * per_step


def test_without_a_step_size_every_interval_has_fifty_steps() -> None:
    calls: list[float] = []

    def drift(x: Tensor, t: Any) -> Tensor:
        calls.append(float(t))
        return torch.zeros_like(x)

    simulate(drift, 0.1, torch.zeros(2, 1), [0.0, 1.0, 100.0], method="euler")

    assert len(calls) == 1 + 100  # one to see the shape


@pytest.mark.parametrize("method", METHODS)
def test_states_at_a_time_do_not_depend_on_times_after_it(method: str) -> None:
    x0 = torch.zeros(50, 2, dtype=torch.float64)
    short = simulate(still, 0.3, x0, [0.0, 0.5], step_size=0.1, method=method, seed=3)
    long = simulate(still, 0.3, x0, [0.0, 0.5, 0.9, 4.0], step_size=0.1, method=method, seed=3)

    assert long.shape == (50, 4, 2)
    if method in ("heun", "euler"):
        torch.testing.assert_close(long[:, :2], short, rtol=0, atol=0)
    # Increments have the variance of their own interval: 100 numbers, 5 standard errors, rate 6e-7 each.
    for index, duration in ((1, 0.5), (2, 0.4), (3, 3.1)):
        ratio = float((long[:, index] - long[:, index - 1]).square().mean()) / (0.09 * duration)
        assert abs(ratio - 1) < 5 * math.sqrt(2 / 100)


def test_one_time_gives_the_start() -> None:
    x0 = torch.randn(4, 2)

    torch.testing.assert_close(simulate(still, 0.1, x0, [3.0]), x0[:, None], rtol=0, atol=0)


# -- volatility, seeds, precision ---------------------------------------------------------------------


def test_a_number_a_vector_and_a_matrix_that_say_the_same_give_the_same_paths() -> None:
    x0 = torch.zeros(5, 2, dtype=torch.float64)

    def paths(volatility: Any) -> Tensor:
        return simulate(ornstein_uhlenbeck(), volatility, x0, [0.0, 1.0], seed=1)

    number = paths(0.3)
    torch.testing.assert_close(paths([0.3, 0.3]), number, rtol=0, atol=0)
    torch.testing.assert_close(paths(np.diag([0.3, 0.3])), number, rtol=0, atol=0)
    torch.testing.assert_close(paths(torch.tensor([[0.3, 0.0], [0.0, 0.3]])), number, rtol=0, atol=1e-7)
    assert not torch.allclose(paths([0.3, 0.4]), number)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_paths_and_leaves_the_ambient_streams_alone(method: str) -> None:
    x0 = torch.zeros(5, 2, dtype=torch.float64)

    def paths(seed: int | None) -> Tensor:
        return simulate(ornstein_uhlenbeck(), 0.3, x0, [0.0, 0.2], step_size=0.1, method=method, seed=seed)

    torch.manual_seed(8), np.random.seed(8)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first, again, other = paths(3), paths(3), paths(4)

    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first[:, 1], other[:, 1])
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    # Without a seed the ambient stream runs on, and NumPy's, which torchsde would take, plays no part.
    ambient = paths(None)
    assert not torch.equal(ambient, paths(None))
    torch.manual_seed(8)
    torch.testing.assert_close(paths(None), ambient, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_paths_have_the_precision_of_the_start_and_no_graph(method: str, dtype: torch.dtype) -> None:
    x0 = torch.ones(5, 2, dtype=dtype)

    paths = simulate(ornstein_uhlenbeck(), 0.3, x0, [0.0, 1.0], step_size=0.1, method=method)

    assert paths.dtype == dtype and not paths.requires_grad
    assert paths.shape == (5, 2, 2)


def test_whole_numbers_and_arrays_are_states_in_double_precision() -> None:
    paths = simulate(still, 0.1, np.array([[1, 2], [3, 4]]), range(3))

    assert paths.dtype == torch.float64 and paths.shape == (2, 3, 2)


def test_no_particles_give_no_paths() -> None:
    assert simulate(still, 0.1, torch.zeros(0, 2), [0.0, 1.0]).shape == (0, 2, 2)


# -- refusals -----------------------------------------------------------------------------------------


X0 = torch.ones(4, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": [0.0, 2.0, 1.0]}, r"must increase, got 1 after 2; sort them .*np\.unique"),
        ({"times": [0.0, 1.0, 1.0]}, r"must increase, got 1 after 1"),
        ({"times": [0.0, float("nan")]}, r"times must be one or more finite numbers"),
        ({"times": []}, r"times must be one or more finite numbers, got \[\]"),
        ({"times": 3.0}, r"times must be one or more finite numbers, got 3\.0"),
        ({"x0": torch.ones(2)}, r"x0 must be states \(N, C\), got shape \(2,\).*is x0\[None\]"),
        ({"x0": torch.tensor([[1.0, 2.0], [1.0, math.nan]])}, r"x0 has 1 of 2 states.*first in row 1"),
        ({"x0": "here"}, r"x0 must be an array of states \(N, C\), got str"),
        ({"step_size": 0.0}, r"step_size must be a positive number, got 0\.0"),
        ({"step_size": -1.0}, r"step_size must be a positive number"),
        ({"method": "rk4"}, r"method must be one of \('heun', 'euler', 'milstein', 'srk'\) for additive"),
        ({"method": "heun", "volatility": still}, r"\('euler', 'milstein', 'srk'\) for noise that depends"),
        ({"volatility": [1.0, 2.0, 3.0]}, r"one number per feature.*with 2 features, got shape \(3,\)"),
        ({"volatility": -0.1}, r"volatility must be finite and not negative"),
        ({"volatility": lambda x, t: x[:, 0]}, r"volatility\(x, t\) must have.*got torch.float64 \(4,\)"),
        ({"drift": lambda x, t: x[:, 0]}, r"drift\(x, t\) must have.*got torch.float64 \(4,\)"),
        ({"drift": lambda x, t: x.float()}, r"drift\(x, t\) must have.*float64 \(4, 2\), got torch.float32"),
        ({"drift": lambda x, t: 0.0}, r"drift\(x, t\) must have.*got float"),
        ({"seed": "one"}, r"seed must be a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"drift": still, "volatility": 0.1, "x0": X0, "times": [0.0, 1.0], **arguments}

    with pytest.raises(ValueError, match=message):
        simulate(**given)


@pytest.mark.parametrize("method", METHODS)
def test_paths_that_explode_are_named_with_their_time(method: str) -> None:
    x0 = torch.tensor([[0.0], [2.0], [0.1]], dtype=torch.float64)  # dx = x² dt explodes at 1 / x0

    with pytest.raises(NonFiniteError, match=r"1 of 3 paths .* times 0\.4 and 3 \(first path 1\)"):
        simulate(lambda x, t: x**3, 0.0, x0, [0.0, 0.1, 0.4, 3.0], step_size=0.1, method=method)


# -- the backend --------------------------------------------------------------------------------------


def test_torchsde_is_imported_in_one_function_only() -> None:
    package = Path(seqdyn.sde.__file__).parents[1]
    found, outside = set(), set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if any(map(imports_torchsde, ast.walk(tree))):
            found.add(path.name)
        if any(map(imports_torchsde, tree.body)):
            outside.add(path.name)

    assert found == {"torchsde_backend.py"} and not outside


def imports_torchsde(node: ast.AST) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return any(name.partition(".")[0] == "torchsde" for name in names)


def test_the_own_step_and_torchsde_differ_only_by_the_noise() -> None:
    # Without noise both take the very same Euler steps.
    x0 = torch.tensor([[5.0, 4.0], [3.0, 1.0]], dtype=torch.float64)
    drift = LotkaVolterra(1.0, 0.4, 0.4, 0.1)

    own = simulate(drift, 0.0, x0, [0.0, 0.35, 1.0], step_size=0.1, method="euler")
    library = simulate(drift, 0.0, x0, [0.0, 0.35, 1.0], step_size=0.1, method="milstein")

    torch.testing.assert_close(own, library, rtol=1e-12, atol=1e-12)
