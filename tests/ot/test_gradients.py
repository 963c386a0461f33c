"""Gradients in points and weights (S1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqdyn.ot import sinkhorn, sinkhorn_divergence


def central_differences(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-4) -> Tensor:
    gradient = torch.zeros_like(x)
    for index in range(x.numel()):
        move = torch.zeros_like(x)
        move.view(-1)[index] = step
        gradient.view(-1)[index] = (function(x + move) - function(x - move)) / (2 * step)
    return gradient


def assert_close(found: Tensor | None, expected: Tensor, relative: float) -> None:
    assert found is not None
    assert float((found - expected).abs().max()) <= relative * float(expected.abs().max())


@pytest.mark.parametrize(
    ("epsilon", "weighted"), [(0.04, False), (0.25, True), (1.0, False), (1.0, True), (4.0, False)]
)
def test_s1_the_gradient_in_the_points_is_that_of_differences(
    example: Any, epsilon: float, weighted: bool
) -> None:
    weights = {"x_weights": example.a, "y_weights": example.b} if weighted else {}
    x, y = (points.clone().requires_grad_() for points in example[:2])

    sinkhorn_divergence(x, y, epsilon=epsilon, **weights).backward()

    def value(x: Tensor, y: Tensor) -> Tensor:
        return sinkhorn_divergence(x, y, epsilon=epsilon, **weights)

    with torch.no_grad():
        assert_close(x.grad, central_differences(lambda moved: value(moved, y), x), 1e-6)
        assert_close(y.grad, central_differences(lambda moved: value(x, moved), y), 1e-6)


def test_the_gradient_in_the_weights_is_that_of_differences_up_to_a_constant(example: Any) -> None:
    x, y, a, b = (one.clone() for one in example)
    a.requires_grad_(), b.requires_grad_()

    sinkhorn_divergence(x, y, epsilon=0.2, x_weights=a, y_weights=b).backward()

    def moved(weights: Tensor, step: float) -> Tensor:
        return weights.detach() + step * torch.eye(len(weights))[0].sub(1 / len(weights)).to(weights)

    def change(step: float) -> Tensor:  # from equal shares of all to the first
        one = sinkhorn_divergence(x, y, epsilon=0.2, x_weights=moved(a, step), y_weights=b.detach())
        other = sinkhorn_divergence(x, y, epsilon=0.2, x_weights=a.detach(), y_weights=moved(b, step))
        return torch.stack([one, other])

    expected = (change(1e-4) - change(-1e-4)) / 2e-4
    assert a.grad is not None and b.grad is not None
    found = torch.stack([a.grad[0] - a.grad.mean(), b.grad[0] - b.grad.mean()])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("epsilon", [0.04, 1.0])
def test_the_annealed_gradient_is_the_formula_of_potentials_that_enter_the_last_update(
    example: Any, epsilon: float
) -> None:
    # Every update written out once more, with dense matrices.
    x, y, a, b = example
    span = torch.cat([x, y]).amax(dim=0) - torch.cat([x, y]).amin(dim=0)
    blurs = [float(span.norm()) * 0.5**k for k in range(20)]
    schedule = [blurs[0] ** 2, *(blur**2 for blur in blurs if blur**2 > epsilon), epsilon]

    def anneal(u: Tensor, v: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        cost = torch.cdist(u, v) ** 2 / 2

        def softmins(f: Tensor, g: Tensor, eps: float) -> tuple[Tensor, Tensor]:
            rows = -eps * torch.logsumexp(q.log() + (g - cost) / eps, dim=1)
            return rows, -eps * torch.logsumexp(p.log()[:, None] + (f[:, None] - cost) / eps, dim=0)

        f, g = softmins(torch.zeros_like(p), torch.zeros_like(q), schedule[0])
        for eps in schedule:
            new_f, new_g = softmins(f, g, eps)
            f, g = (f + new_f) / 2, (g + new_g) / 2
        return torch.softmax(q.log() + (g - cost) / epsilon, dim=1) @ v, softmins(f, g, epsilon)[0]

    (to_y, f), (to_x, f_self) = anneal(x, y, a, b), anneal(x, x, a, a)
    points = x.clone().requires_grad_()
    result = sinkhorn(points, y, epsilon=epsilon, x_weights=a, y_weights=b, mode="annealed")
    result.value.backward()

    assert points.grad is not None
    torch.testing.assert_close(points.grad, a[:, None] * (to_x - to_y), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.potentials.x, f, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.potentials.x_self, f_self, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["converged", "annealed"])
def test_descending_the_gradient_moves_one_cloud_onto_the_other(mode: str) -> None:
    x = torch.randn(30, 2, dtype=torch.float64).requires_grad_()
    y = torch.randn(30, 2, dtype=torch.float64) + 3

    before = sinkhorn_divergence(x, y, epsilon=0.1, mode=mode).detach()
    for _ in range(10):
        (gradient,) = torch.autograd.grad(sinkhorn_divergence(x, y, epsilon=0.1, mode=mode), x)
        x.data -= len(x) * gradient

    assert sinkhorn_divergence(x, y, epsilon=0.1, mode=mode) < 0.01 * before


def test_only_what_asks_for_a_gradient_gets_one_and_upstream_factors_count(example: Any) -> None:
    x, y = example.x.clone().requires_grad_(), example.y.clone()
    (gradient,) = torch.autograd.grad(sinkhorn_divergence(x, y, epsilon=1.0), x)

    (3 * sinkhorn_divergence(2 * x / 2, y, epsilon=1.0)).backward()

    assert x.grad is not None and y.grad is None
    torch.testing.assert_close(x.grad, 3 * gradient)
    assert not sinkhorn_divergence(x.detach(), y, epsilon=1.0).requires_grad


def test_the_backward_pass_keeps_a_matrix_of_the_size_of_the_points_alone(example: Any) -> None:
    kept: list[tuple[int, ...]] = []
    x = example.x.clone().requires_grad_()

    with torch.autograd.graph.saved_tensors_hooks(
        lambda one: kept.append(tuple(one.shape)) or one, lambda one: one
    ):
        sinkhorn_divergence(x, example.y, epsilon=1.0)

    assert kept == [(4, 2)]


@pytest.mark.parametrize("mode", ["converged", "annealed"])
def test_the_grad_mode_stays_as_it_was(example: Any, mode: str) -> None:
    x = example.x.clone().requires_grad_()
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            value = sinkhorn_divergence(x, example.y, epsilon=0.5, mode=mode)
            assert torch.is_grad_enabled() is enabled
            assert value.requires_grad is enabled
    with torch.inference_mode():
        assert not sinkhorn_divergence(x, example.y, epsilon=0.5, mode=mode).requires_grad
        assert torch.is_inference_mode_enabled()
