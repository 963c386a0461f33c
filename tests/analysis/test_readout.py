"""Readout axes and logits along time, against plain geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seqdyn.analysis import logit_gradients, readout_axes
from seqdyn.dynamics.maps import MapDynamics

ROWS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def noise(h: Tensor, u: Tensor | None) -> Tensor:
    # Two strong units and a weak one: the plane is that of the first two.
    scale = torch.tensor([3.0, 2.0, 0.01])
    return 0 * h if u is None else scale * u


def test_angles_with_the_plane() -> None:
    found = readout_axes(MapDynamics(noise, lambda h: h @ ROWS.T, 3, 3), seed=0)

    np.testing.assert_allclose(found.angle_deg[:3], [0, 90, 45], atol=1)
    np.testing.assert_allclose(found.projection_length[:3], [1, 0, math.sqrt(0.5)], atol=0.02)
    np.testing.assert_allclose(found.readout_projection[0], [1, 0], atol=0.03)
    assert np.isnan(found.angle_deg[3]) and "no axis" in found.attrs["reason"]
    assert found.attrs["linear"] == 1


def test_a_curved_readout_is_told() -> None:
    assert readout_axes(MapDynamics(noise, lambda h: h**2, 3, 3), seed=0).attrs["linear"] == 0


def test_logits_along_a_line() -> None:
    run = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 2]])

    found = logit_gradients(MapDynamics(noise, lambda h: h @ ROWS.T, 3, 3), run)

    np.testing.assert_allclose(found.logit_change[0, :, 0], [2, 0, -2, 0])
    np.testing.assert_allclose(found.alignment[0, :, 0], [1, np.nan, -1, 0])
    np.testing.assert_allclose(
        found.alignment[0, :, 2], np.array([1, np.nan, -1, 1]) * math.sqrt(0.5), rtol=1e-6
    )
    assert np.isnan(found.alignment[0, :, 3]).all()
    # Zero changes do not count: 2, 0, -2, 0 turns once; 1, 0, -1, 2 twice.
    np.testing.assert_array_equal(found.sign_changes, [[1, 0, 2, 0]])


def test_runs_without_readout_are_refused() -> None:
    with pytest.raises(ValueError, match="no readout"):
        logit_gradients(MapDynamics(noise, None, 3, 3), torch.zeros(5, 3))
