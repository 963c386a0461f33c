"""A sum taken part by part has the value and the gradient of the sum taken at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from seqdyn.nn.parts import sum_over_parts

ROWS = 7


@pytest.mark.parametrize("part_size", [1, 2, 3, 7, 100])
def test_value_and_gradient_are_those_of_the_whole(part_size: int) -> None:
    x = torch.randn(ROWS, 4, dtype=torch.float64)
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def function(rows: slice, shared: Sequence[Tensor | None]) -> Tensor:
        return torch.tanh(x[rows] @ shared[0] + shared[1]).square().sum()

    # Downstream of the sum, and upstream of what is shared, the graph goes on as usual.
    total = 3 * sum_over_parts(function, ROWS, part_size, [weight.exp(), bias])
    gradients = torch.autograd.grad(total, [weight, bias])

    expected = 3 * function(slice(None), [weight.exp(), bias])
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, [weight, bias]))


def test_the_gradient_is_that_of_finite_differences() -> None:
    x = torch.randn(ROWS, 4, dtype=torch.float64)
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(
        lambda w: sum_over_parts(lambda rows, shared: (x[rows] @ shared[0]).sin().sum(), ROWS, 3, [w]),
        [weight],
    )


def test_inputs_that_share_one_gradient_keep_their_own_sums() -> None:
    # The gradient of a + b is one tensor for both, and that of a sum has a stride of 0.
    a, b = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)

    total = sum_over_parts(lambda rows, shared: (shared[0] + shared[1]).sum(), ROWS, 2, [a, b])
    total.backward()

    torch.testing.assert_close(a.grad, torch.full((3,), 4.0))  # four parts
    torch.testing.assert_close(b.grad, torch.full((3,), 4.0))


def test_what_takes_no_part_has_no_gradient() -> None:
    used, unused, late = (torch.ones(2, requires_grad=True) for _ in range(3))
    fixed = torch.ones(2)

    def function(rows: slice, shared: Sequence[Tensor | None]) -> Tensor:
        assert shared[3] is None
        value = (shared[0] * shared[2]).sum()
        return value if rows.start == 0 else value + shared[4].sum()

    sum_over_parts(function, 4, 2, [used, unused, fixed, None, late]).backward()

    torch.testing.assert_close(used.grad, torch.full((2,), 2.0))
    torch.testing.assert_close(late.grad, torch.ones(2))
    assert unused.grad is None and fixed.grad is None


@pytest.mark.parametrize("frozen", [True, False])
def test_without_gradients_the_value_is_the_same(frozen: bool) -> None:
    weight = torch.arange(3.0, requires_grad=not frozen)

    with torch.set_grad_enabled(frozen):
        total = sum_over_parts(
            lambda rows, shared: (rows.stop - rows.start) * shared[0].sum(), ROWS, 3, [weight]
        )

    assert float(total) == 21
    assert not total.requires_grad


def test_the_graph_of_a_part_is_gone_before_the_next_begins() -> None:
    alive: list[int] = []
    peak: list[int] = []

    class Tracked(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            alive.append(1)
            peak.append(len(alive))
            return x.clone()

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
            alive.pop()
            return grad

    weight = torch.ones(2, requires_grad=True)
    sum_over_parts(lambda rows, shared: Tracked.apply(shared[0]).sum(), ROWS, 2, [weight]).backward()

    assert peak == [1, 1, 1, 1]
