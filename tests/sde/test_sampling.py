"""Draws that are spread evenly."""

from __future__ import annotations

import pytest
import torch

from seqdyn.sde import sampling
from seqdyn.sde.sampling import pick, systematic


@pytest.fixture
def plan() -> torch.Tensor:
    weights = torch.rand(50, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights[:, 3] = 0
    weights[7] = 0
    weights[7, 5] = 1
    return weights / weights.sum()


def counted(rows: torch.Tensor, columns: torch.Tensor, plan: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros_like(plan)
    return counts.index_put_((rows, columns), torch.ones(len(rows), dtype=plan.dtype), accumulate=True)


def test_each_number_is_drawn_within_one_of_its_expected_count(plan: torch.Tensor) -> None:
    weights = plan.sum(dim=1)

    drawn = torch.bincount(systematic(weights, 1234), minlength=50)

    assert float((drawn - 1234 * weights).abs().max()) < 1


@pytest.mark.parametrize("entries", [2**22, 100])
def test_each_pair_is_drawn_within_two_of_its_expected_count(
    plan: torch.Tensor, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_ENTRIES", entries)
    rows = systematic(plan.sum(dim=1), 20_000)

    counts = counted(rows, pick(plan, rows), plan)

    # One for the row's own count, one for the column within it.
    assert float((counts - 20_000 * plan).abs().max()) < 2
    assert float(counts[:, 3].sum()) == 0
    assert float(counts[7, 5]) == float(counts[7].sum())


def test_columns_have_the_law_of_their_row_whatever_stands_around_it(plan: torch.Tensor) -> None:
    # One draw a row at a time: no evenness helps, the frequencies are those of independent draws.
    rows = torch.full((1,), 11)
    found = torch.cat([pick(plan, rows) for _ in range(4000)])

    share = torch.bincount(found, minlength=70) / 4000
    expected = plan[11] / plan[11].sum()
    # Mean sum of absolute errors of independent draws; a third more has a chance of less than 1e-6.
    scale = float((2 * expected / (torch.pi * 4000)).sqrt().sum())
    assert float((share - expected).abs().sum()) < 1.33 * scale


def test_an_empty_row_is_refused() -> None:
    plan = torch.tensor([[0.5, 0.5], [0.0, 0.0]], dtype=torch.float64)

    with pytest.raises(ValueError, match="row 1 of a plan has no weight"):
        pick(plan, torch.tensor([0, 1, 0]))
