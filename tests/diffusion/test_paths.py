"""Paths of many series: what they depend on and what not (spec check D9)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seqdyn.diffusion import Denoiser, NoiseSchedule, QuantileGuidance, SquareGuidance, ddim, ddpm
from seqdyn.diffusion.paths import PathOptions, draw_paths
from seqdyn.errors import NonFiniteError
from seqdyn.rng import NoiseSource

LENGTH, CHANNELS, STEPS = 6, 2, 10
LABELS = [("north",), ("south",), (7,)]


def options(**changes: Any) -> PathOptions:
    settings: dict[str, Any] = {
        "num_samples": 4,
        "seed": 3,
        "guidance": "quantile",
        "guidance_scale": None,
        "guidance_point": "proposal",
        "sampler": "ddpm",
        "num_steps": None,
        "batch_size": 100,
        "progress": False,
    }
    return PathOptions(**{**settings, **changes})


@pytest.fixture
def schedule(double_precision: None) -> NoiseSchedule:
    return NoiseSchedule.linear(STEPS, beta_end=0.4)


def predict_noise(x: Tensor, step: Tensor, covariates: Tensor | None = None) -> Tensor:
    """A smooth stand-in for a network that mixes time and channels and knows the step."""
    mixed = torch.tanh(x.cumsum(1) / 3 + x.roll(1, 2) + step[:, None, None] / STEPS)
    return mixed if covariates is None else mixed + covariates.sum(2, keepdim=True)


def observations() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(3, LENGTH, CHANNELS, generator=generator)
    return target, torch.rand(3, LENGTH, CHANNELS, generator=generator) < 0.6


def draw(schedule: NoiseSchedule, rows: slice | list[int] = slice(None), **changes: Any) -> Tensor:
    """Draws (S, M, L, C) of some of the series."""
    target, observed = observations()
    labels = [LABELS[i] for i in rows] if isinstance(rows, list) else LABELS[rows]
    draws, _ = draw_paths(predict_noise, schedule, target[rows], observed[rows], labels, options(**changes))
    return draws


GUIDANCES = pytest.mark.parametrize("guidance", ["quantile", "square", None])


@GUIDANCES
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_path_is_the_sampler_run_on_its_own_noise(
    schedule: NoiseSchedule, guidance: str | None, sampler: str
) -> None:
    # Path k of series m: its noise is keyed by (seed, label, k) and its level is (k + 1)/(S + 1).
    target, observed = observations()
    draws = draw(schedule, guidance=guidance, sampler=sampler, batch_size=5)

    assert draws.shape == (4, 3, LENGTH, CHANNELS)
    for m, label in enumerate(LABELS):
        for k in range(4):
            noise = NoiseSource(3, [(*label, k)])
            denoiser = Denoiser(predict_noise, schedule)
            y, mask = target[m : m + 1], observed[m : m + 1]
            guide: Any = None
            if guidance == "square":
                guide = SquareGuidance(denoiser, y, mask, 0.1)
            elif guidance == "quantile":
                guide = QuantileGuidance(denoiser, y, mask, 4.0, torch.tensor([(k + 1) / 5]))
            run = ddpm if sampler == "ddpm" else ddim
            x = run(denoiser, noise.normal(STEPS, y), guidance=guide, draw=noise.normal)
            torch.testing.assert_close(draws[k, m], x[0], rtol=0, atol=1e-12)


@GUIDANCES
@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 12])
def test_d9_paths_do_not_depend_on_how_they_are_batched(
    schedule: NoiseSchedule, guidance: str | None, batch_size: int
) -> None:
    together = draw(schedule, guidance=guidance)

    torch.testing.assert_close(
        draw(schedule, guidance=guidance, batch_size=batch_size), together, rtol=0, atol=1e-12
    )


@GUIDANCES
def test_d9_paths_do_not_depend_on_the_order_or_presence_of_other_series(
    schedule: NoiseSchedule, guidance: str | None
) -> None:
    together = draw(schedule, guidance=guidance)

    torch.testing.assert_close(
        draw(schedule, [2, 0], guidance=guidance), together[:, [2, 0]], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("guidance", ["square", None])
def test_d9_the_first_paths_of_many_are_the_paths_of_few(
    schedule: NoiseSchedule, guidance: str | None
) -> None:
    many, few = (draw(schedule, guidance=guidance, num_samples=count) for count in (8, 4))

    torch.testing.assert_close(many[:4], few, rtol=0, atol=1e-12)


def test_d9_of_quantile_paths_the_noise_is_the_same_and_the_levels_follow_the_number(
    schedule: NoiseSchedule,
) -> None:
    # Path 2 of 7 aims at 3/8, path 2 of 3 at 3/4: with one noise, the latter lies higher where observed.
    many, few = (draw(schedule, num_samples=count, guidance_scale=2.0) for count in (7, 3))
    observed = observations()[1]

    assert float((few[2] - many[2])[observed].mean()) > 0.01
    free = [draw(schedule, num_samples=count, guidance_scale=1e-12) for count in (7, 3)]
    torch.testing.assert_close(free[0][:3], free[1])


def test_the_same_call_twice_is_bit_equal_and_another_seed_is_not(schedule: NoiseSchedule) -> None:
    first = draw(schedule)

    assert torch.equal(draw(schedule), first)
    assert not torch.equal(draw(schedule, seed=4), first)


def test_only_the_wanted_steps_and_channels_come_back(schedule: NoiseSchedule) -> None:
    target, observed = observations()
    keep = (slice(4, None), slice(1))

    draws, states = draw_paths(
        predict_noise, schedule, target, observed, LABELS, options(), keep=keep, trajectory_steps=[9, 0, 5]
    )

    assert draws.shape == (4, 3, 2, 1) and states.shape == (3, 4, 3, 2, 1)
    assert torch.equal(draws, draw(schedule)[:, :, 4:, :1])
    assert torch.equal(states[1], draws)  # after step 0 the chain is at its end


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_states_along_the_way_are_those_of_the_sampler(schedule: NoiseSchedule, sampler: str) -> None:
    target, observed = observations()
    _, states = draw_paths(
        predict_noise, schedule, target, observed, LABELS,
        options(guidance=None, sampler=sampler, num_steps=5, batch_size=5), trajectory_steps=[6, 2],
    )  # fmt: skip

    for m, k in [(0, 0), (1, 3), (2, 2)]:
        noise, seen = NoiseSource(3, [(*LABELS[m], k)]), {}
        run = ddpm if sampler == "ddpm" else ddim
        run(
            Denoiser(predict_noise, schedule),
            noise.normal(STEPS, target[:1]),
            num_steps=5,
            draw=noise.normal,
            callback=lambda step, x, seen=seen: seen.update({step: x[0]}),
        )
        torch.testing.assert_close(states[0, k, m], seen[6], rtol=0, atol=1e-12)
        torch.testing.assert_close(states[1, k, m], seen[2], rtol=0, atol=1e-12)


def test_every_path_sees_the_covariates_of_its_series(schedule: NoiseSchedule) -> None:
    target, observed = observations()
    covariates = torch.randn(3, LENGTH, 2)

    together, _ = draw_paths(
        predict_noise, schedule, target, observed, LABELS, options(batch_size=5), covariates=covariates
    )

    for m in range(3):
        one = slice(m, m + 1)
        alone, _ = draw_paths(
            predict_noise,
            schedule,
            target[one],
            observed[one],
            LABELS[one],
            options(),
            covariates=covariates[one],
        )
        torch.testing.assert_close(together[:, one], alone, rtol=0, atol=1e-12)
    assert not torch.allclose(together, draw(schedule))


def test_diverging_draws_name_the_series_the_scale_and_a_smaller_one(schedule: NoiseSchedule) -> None:
    with pytest.raises(
        NonFiniteError,
        match=r"'south' diverged under square guidance with guidance_scale=1e\+250; try guidance_scale=0\.1",
    ):
        draw(schedule, [1, 0], guidance="square", guidance_scale=1e250)


def test_the_smaller_scale_is_a_quarter_of_one_below_the_default() -> None:
    def broken(x: Tensor, step: Tensor) -> Tensor:
        return x * float("inf")

    target, observed = torch.zeros(1, 3, 1), torch.ones(1, 3, 1, dtype=torch.bool)
    with pytest.raises(NonFiniteError, match=r"guidance_scale=2; try guidance_scale=0\.5\."):
        draw_paths(broken, NoiseSchedule.linear(2), target, observed, [("a",)], options(guidance_scale=2.0))


def test_draws_that_break_without_guidance_put_it_on_the_weights() -> None:
    target = torch.zeros(2, 3, 1)

    def broken(x: Tensor, step: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None, None] > 4, float("nan"), x)

    with pytest.raises(NonFiniteError, match="draws of series 'b' are not finite.*train again"):
        draw_paths(
            broken, NoiseSchedule.linear(2), target, target.bool(), [("a",), ("b",)], options(guidance=None)
        )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            {"guidance": "quantile", "guidance_scale": 4.0, "guidance_point": "proposal", "num_steps": "all"},
        ),
        (
            {"guidance": "square", "num_steps": 5},
            {"guidance": "square", "guidance_scale": 0.1, "num_steps": 5},
        ),
        ({"guidance_scale": 2.5, "sampler": "ddim"}, {"guidance_scale": 2.5, "sampler": "ddim"}),
        ({"guidance": None}, {"guidance": "none", "sampler": "ddpm"}),
    ],
)
def test_the_options_in_force_are_told(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    provenance = options(**changes).provenance()

    assert expected.items() <= provenance.items()
    assert all(isinstance(value, str | int | float) for value in provenance.values())  # as netCDF takes them
    assert ("guidance_scale" in provenance) is (provenance["guidance"] != "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 0}, "num_samples must be a whole number of at least 1, got 0"),
        ({"num_samples": 2.5}, "num_samples must be a whole number of at least 1, got 2.5"),
        ({"batch_size": -1}, "batch_size must be a whole number of at least 1, got -1"),
        ({"sampler": "dpm"}, r"sampler must be one of \('ddpm', 'ddim'\), got 'dpm'"),
        ({"guidance": "median"}, r"one of \('quantile', 'square'\) or None, got 'median'"),
        ({"guidance_point": "x0"}, r"guidance_point must be one of \('proposal', 'xt'\), got 'x0'"),
        (
            {"guidance_scale": 0.0},
            "a positive number, got 0.0; for draws without guidance pass guidance=None",
        ),
        ({"guidance_scale": float("inf")}, "a positive number, got inf"),
        ({"guidance_scale": float("nan")}, "a positive number, got nan"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)
