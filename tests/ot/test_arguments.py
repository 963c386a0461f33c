"""What is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqdyn.ot import auto_blur, self_transport, sinkhorn, sinkhorn_divergence

X, Y = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
NAN = torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X.numpy(), Y, r"x must be a tensor, got ndarray; type torch\.as_tensor\(x\)"),
        (X.half(), Y, r"float32 or float64, got torch\.float16; type x\.float\(\)"),
        (X.long(), Y, r"got torch\.int64; type x\.float\(\)"),
        (X[None], Y, r"got \(1, 2, 2\); type x\.flatten\(1\)"),
        (X, Y[:0], r"y must have shape .* both at least 1, got \(0, 2\)"),
        (NAN, Y, r"x has 1 of 2 points with NaN or infinity \(first at x\[1\]\); drop them with x\[x\.isfin"),
        (X, Y / 0, r"y has 3 of 3 points with NaN or infinity \(first at y\[0\]\)"),
        (X, Y[:, :1], r"same coordinates, got 2 and 1"),
        (X, Y.double(), r"type y = y\.to\(x\)"),
        (X, Y + 1e30, r"out of the range of torch\.float32; divide the points"),
    ],
)
def test_points_that_cannot_be_compared_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn_divergence(x, y, epsilon=1.0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5], r"tensor of shape \(2,\), one weight per point, got list; leave it out for equal"),
        (torch.tensor([1.0]), r"got \(1,\)"),
        (torch.tensor([1.5, -0.5]), r"not negative, got -0\.5 at x_weights\[1\]; type x_weights\.clamp"),
        (torch.tensor([float("nan"), 1.0]), r"must be finite and not negative, got nan at x_weights\[0\]"),
        (torch.tensor([0.5, 0.6]), r"must sum to 1, got 1\.1\d*; type x_weights / x_weights\.sum\(\)"),
        (torch.zeros(2), r"must sum to 1, got 0"),
    ],
)
def test_weights_that_are_none_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn_divergence(X, Y, epsilon=1.0, x_weights=weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"epsilon": 0.0},
            r"epsilon must be a positive number, got 0\.0; epsilon=seqdyn\.ot\.auto_blur\(y\)",
        ),
        ({"epsilon": -1}, r"epsilon must be a positive number, got -1"),
        ({"epsilon": float("nan")}, "epsilon must be a positive number, got nan"),
        ({"epsilon": "auto"}, "epsilon must be a positive number, got 'auto'"),
        ({"epsilon": 1e-40}, "raise epsilon"),
        ({"mode": "fast"}, r"mode must be one of \('converged', 'annealed'\), got 'fast'"),
        ({"scaling": 1.0}, r"scaling must be below 1, got 1\.0; .* usually 0\.5"),
        ({"scaling": 0.0}, "scaling must be a positive number"),
        ({"diameter": 0.0}, "diameter must be a positive number, got 0.0; leave it out"),
        ({"tolerance": 0.0}, "tolerance must be a positive number"),
        ({"max_iters": 0}, "max_iters must be a whole number of at least 1, got 0"),
        ({"max_memory": -1}, "max_memory must be a positive number, got -1; it is a number of bytes"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    for function in (sinkhorn_divergence, sinkhorn):
        with pytest.raises(ValueError, match=message):
            function(X, Y, **{"epsilon": 1.0, **options})


def test_a_self_transport_of_something_else_is_refused() -> None:
    known = self_transport(Y, epsilon=1.0)

    with pytest.raises(ValueError, match=r"other targets or weights; type y_self=self_transport\(y"):
        sinkhorn_divergence(X, Y + 1, epsilon=1.0, y_self=known)
    with pytest.raises(ValueError, match="other targets or weights"):
        weights = torch.tensor([0.2, 0.3, 0.5])
        sinkhorn_divergence(X, Y, epsilon=1.0, y_weights=weights, y_self=known)
    with pytest.raises(ValueError, match=r"made with mode='converged', epsilon=1, not with .* epsilon=2"):
        sinkhorn_divergence(X, Y, epsilon=2.0, y_self=known)
    with pytest.raises(ValueError, match="not with mode='annealed'"):
        sinkhorn_divergence(X, Y, epsilon=1.0, mode="annealed", y_self=known)
    with pytest.raises(ValueError, match=r"y needs a gradient, .* leave y_self out"):
        sinkhorn_divergence(X, Y.clone().requires_grad_(), epsilon=1.0, y_self=known)


def test_an_annealed_self_transport_needs_the_diameter_of_both() -> None:
    with pytest.raises(ValueError, match=r"type diameter= here and in sinkhorn_divergence"):
        self_transport(Y, epsilon=0.1, mode="annealed")
    known = self_transport(Y, epsilon=0.1, mode="annealed", diameter=3.0)
    for other in ({}, {"diameter": 4.0}, {"diameter": 3.0, "scaling": 0.7}):
        with pytest.raises(ValueError, match=r"the same diameter and scaling .* diameter=3 for instance"):
            sinkhorn_divergence(X, Y, epsilon=0.1, mode="annealed", y_self=known, **other)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(3), r"shape \(points, coordinates\) .* got \(3,\); flatten sequences"),
        (torch.zeros(1, 2), "at least 2 points"),
        (torch.ones(4, 2), "all targets coincide, .* give epsilon as a number"),
        (NAN, "NaN or infinity; drop them"),
    ],
)
def test_targets_without_a_scale_have_no_blur(targets: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auto_blur(targets)
