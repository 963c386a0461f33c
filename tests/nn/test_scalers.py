"""Scales of windows and of features: values, missing cells, awkward inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqdyn.nn.scalers import MeanScaler, Standardizer


def test_the_scale_is_the_mean_absolute_value_of_the_observed_cells() -> None:
    context = torch.tensor([[[1.0, 10.0], [-3.0, 20.0], [100.0, 60.0]]])
    observed = torch.tensor([[[True, True], [True, True], [False, True]]])

    scale = MeanScaler.scale(context, observed)

    torch.testing.assert_close(scale, torch.tensor([[[2.0, 30.0]]]))


def test_unobserved_cells_have_no_influence_on_the_scale_bit_for_bit() -> None:
    context = torch.randn(5, 12, 2)
    observed = torch.rand(5, 12, 2) < 0.5

    scale = MeanScaler.scale(context, observed)

    other = torch.where(observed, context, torch.full_like(context, 1e9))
    assert torch.equal(scale, MeanScaler.scale(other, observed))


@pytest.mark.parametrize("value", [0.0, 7.0], ids=["all zero", "all missing"])
def test_a_context_without_size_has_scale_one(value: float) -> None:
    context = torch.full((2, 6, 1), value)
    observed = torch.full((2, 6, 1), value == 0)

    assert torch.equal(MeanScaler.scale(context, observed), torch.ones(2, 1, 1))


@pytest.mark.parametrize("value", [3e38, 1e38, 1e30, 1e-30, 1e-38])
def test_the_scale_of_very_large_and_very_small_values_is_right(value: float) -> None:
    context = torch.full((1, 100, 1), value)

    scale = MeanScaler.scale(context, torch.ones(1, 100, 1, dtype=torch.bool))

    assert float(scale) == pytest.approx(value, rel=1e-5)


def test_the_scale_of_a_window_does_not_depend_on_the_others() -> None:
    context, observed = torch.randn(8, 24, 1), torch.rand(8, 24, 1) < 0.7
    observed[3] = False

    together = MeanScaler.scale(context, observed)

    for i in range(8):
        assert torch.equal(MeanScaler.scale(context[i : i + 1], observed[i : i + 1]), together[i : i + 1])


def test_the_scale_carries_no_gradient_and_follows_the_dtype() -> None:
    context = torch.randn(2, 6, 1, dtype=torch.float64, requires_grad=True)

    scale = MeanScaler.scale(context, torch.ones(2, 6, 1, dtype=torch.bool))

    assert not scale.requires_grad and scale.dtype == torch.float64


def test_the_standardizer_has_the_moments_of_what_it_was_fitted_to() -> None:
    values = torch.tensor(np.random.default_rng(0).normal(5.0, [2.0, 0.1], (4, 30, 2)))
    scaler = Standardizer(2)

    scaler.fit(values)
    standard = scaler(values.float())

    torch.testing.assert_close(standard.mean((0, 1)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std((0, 1), correction=0), torch.ones(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaler.inverse(standard), values.float())


def test_a_constant_feature_is_only_centred() -> None:
    scaler = Standardizer(1)

    scaler.fit(torch.full((10, 1), 3.0))

    assert torch.equal(scaler(torch.tensor([[3.0], [4.0]])), torch.tensor([[0.0], [1.0]]))


def test_an_offset_far_above_the_spread_does_not_spoil_the_statistics() -> None:
    # In float32 the spread of 1e8 ± 1 would be lost; the fit works in float64.
    scaler = Standardizer(1).double()

    scaler.fit(1e8 + torch.tensor([[-1.0], [1.0]], dtype=torch.float64))

    assert float(scaler.std) == 1.0 and float(scaler.mean) == 1e8


def test_the_statistics_are_saved_with_the_weights() -> None:
    scaler = Standardizer(2)
    scaler.fit(torch.randn(10, 2))
    other = Standardizer(2)

    other.load_state_dict(scaler.state_dict())

    assert torch.equal(other(torch.ones(2)), scaler(torch.ones(2)))
