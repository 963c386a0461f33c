"""Sums of plans in blocks against dense matrices, in both forms, kept and computed afresh."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqdyn.ot import costs, plan, sinkhorn_divergence
from seqdyn.ot.annealed import schedule
from seqdyn.ot.converged import Kernel, Relaxation
from seqdyn.ot.costs import Cost
from seqdyn.ot.plan import Problem, sums


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks even for few points, the last one smaller."""
    monkeypatch.setattr(costs, "CPU_BLOCK", 1)
    monkeypatch.setattr(costs, "LEAST_ROWS", 3)


@pytest.fixture(params=["plain", "shifted"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(plan, "may_look", lambda device: request.param == "plain")
    return request.param


def weights(num_points: int) -> Tensor:
    values = torch.rand(num_points, dtype=torch.float64)
    values[:4] = 0  # more than a block of them
    return values / values.sum()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_sums_and_means_are_those_of_the_dense_plan(form: str, keep: bool, symmetric: bool) -> None:
    x, y = torch.randn(10, 2, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    a, b, f, g = weights(10), weights(8), torch.randn(10).double(), torch.randn(8).double()
    if symmetric:
        y, b, g = x, a, f
    dense = ((f[:, None] + g - torch.cdist(x, y) ** 2 / 2) / 0.3).exp()
    problem = Problem(Cost(x, None if symmetric else y, keep=keep), a, b)

    found = sums(problem, f, g, 0.3, row_means=True, col_means=True)

    torch.testing.assert_close(found.rows, (dense @ b).log())
    torch.testing.assert_close(found.cols, (a @ dense).log())
    torch.testing.assert_close(found.row_means, dense @ (b[:, None] * y) / (dense @ b)[:, None])
    torch.testing.assert_close(found.col_means, dense.T @ (a[:, None] * x) / (a @ dense)[:, None])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_kernel_multiplies_like_the_dense_plan(keep: bool, symmetric: bool) -> None:
    x, y = torch.randn(10, 2, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    a, b, f, g = weights(10), weights(8), torch.randn(10).double(), torch.randn(8).double()
    if symmetric:
        y, b, g = x, a, f
    dense = ((f[:, None] + g - torch.cdist(x, y) ** 2 / 2) / 0.3).exp()
    kernel = Kernel(Problem(Cost(x, None if symmetric else y, keep=True), a, b), f, g, 0.3, keep=keep)
    log_u, log_v = torch.randn(len(x)).double(), torch.randn(len(y)).double()

    torch.testing.assert_close(kernel.rows(log_v).exp(), dense @ (b * log_v.exp()))
    torch.testing.assert_close(kernel.cols(log_u).exp(), (a * log_u.exp()) @ dense)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_potentials_far_from_balance_are_summed_all_the_same(dtype: torch.dtype) -> None:
    # exp(±500) is out of the range of float32, exp(±5000) of both.
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=dtype)
    f = torch.tensor([5000.0, -5000.0, 500.0, 0.0], dtype=dtype)
    w = torch.full((4,), 0.25, dtype=dtype)

    found = sums(Problem(Cost(x, x, keep=True), w, w), f, torch.zeros_like(f), 1.0)

    cost = torch.cdist(x.double(), x.double()) ** 2 / 2
    expected = f.double() + torch.logsumexp(-cost, dim=1) - math.log(4)
    torch.testing.assert_close(found.rows.double(), expected, rtol=1e-6, atol=1e-6)
    col_expected = torch.logsumexp(f.double()[:, None] - cost, dim=0) - math.log(4)
    torch.testing.assert_close(found.cols.double(), col_expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["converged", "annealed"])
def test_outliers_and_coarse_schedules_stay_exact_in_float32(mode: str) -> None:
    x, y = torch.randn(40, 2), torch.randn(30, 2)
    x[0], y[0] = 60.0, -40.0
    options: dict[str, Any] = {"epsilon": 0.5, "mode": mode, "scaling": 0.05}

    single = sinkhorn_divergence(x, y, **options)

    torch.testing.assert_close(
        single.double(), sinkhorn_divergence(x.double(), y.double(), **options), rtol=1e-5, atol=0
    )


def test_the_schedule_is_the_published_one() -> None:
    found = schedule(300**0.5, 0.04, 0.5)

    assert found == pytest.approx([300, *(300 / 4**k for k in range(7)), 0.04])
    assert schedule(1.0, 4.0, 0.5) == (1.0, 4.0)
    # Strictly above: an epsilon that is met exactly comes once.
    assert schedule(2.0, 0.25, 0.5) == pytest.approx([4, 4, 1, 0.25])


class Trace(TorchDispatchMode):
    """Looks at numbers and the largest new tensors, by dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.largest: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.looks += func is torch.ops.aten._local_scalar_dense.default
        if isinstance(out, Tensor):
            self.largest[out.dtype] = max(self.largest.get(out.dtype, 0), out.numel())
        return out


def test_the_annealed_loop_never_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "may_look", lambda device: False)
    x, y = torch.randn(10, 2).requires_grad_(), torch.randn(10, 2)
    looks = []
    for epsilon in (1.0, 0.02):
        with Trace() as trace:
            sinkhorn_divergence(x, y, epsilon=epsilon, mode="annealed").backward()
        looks.append(trace.looks)

    assert looks[0] == looks[1] > 0


@pytest.mark.parametrize("form_", ["plain", "shifted"])
@pytest.mark.parametrize("mode", ["converged", "annealed"])
@pytest.mark.parametrize("max_memory", [1e9, 1.0])
def test_no_temporary_is_of_full_size_and_float32_stays_so(
    monkeypatch: pytest.MonkeyPatch, form_: str, mode: str, max_memory: float
) -> None:
    monkeypatch.setattr(plan, "may_look", lambda device: form_ == "plain")
    x, y = torch.randn(60, 2).requires_grad_(), torch.randn(70, 2)

    with Trace() as trace:
        sinkhorn_divergence(x, y, epsilon=1.0, mode=mode, max_memory=max_memory).backward()

    assert trace.largest[torch.float32] <= 3 * 70
    assert trace.largest.get(torch.float64, 0) <= 2 * 70


@pytest.mark.parametrize("rate", [0.3, 0.9, 0.999])
def test_the_relaxation_follows_from_the_rate(rate: float) -> None:
    relaxation = Relaxation()
    for k in range(17):
        relaxation.update(rate**k)

    best = 2 / (1 + math.sqrt(1 - rate))
    assert relaxation.factor == pytest.approx(best, rel=1e-6)
    # At the best factor w the rate is w - 1, and the factor stays.
    for k in range(25):
        relaxation.update((best - 1) ** k)
    assert relaxation.factor == pytest.approx(best, rel=1e-3)


def test_a_growing_error_takes_the_relaxation_back() -> None:
    relaxation = Relaxation()
    for k in range(17):
        relaxation.update(0.9**k)
    assert relaxation.factor > 1
    for k in range(40):
        relaxation.update(1.1**k)
    assert relaxation.factor == 1.0
