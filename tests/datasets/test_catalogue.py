"""The table of datasets: what loads, how large it is, and that cards and checksums agree with the code."""

from __future__ import annotations

import configparser
import dataclasses
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from seqdyn import datasets
from seqdyn.data import (
    check_episodes,
    check_sequences,
    check_snapshots,
    from_netcdf,
    observed_mask,
    to_netcdf,
)
from seqdyn.datasets import files
from seqdyn.datasets.catalogue import RECIPES

CARDS = Path(__file__).parents[2] / "datasets"
EMBEDDED = Path(files.__file__).parent / "embedded" / "nyc_flights.nc"
NAMES = [recipe.name for recipe in RECIPES]
UNRECORDED = [recipe.name for recipe in RECIPES if recipe.files[0].sha256 is None]
CHECKS = {"sequences": check_sequences, "snapshots": check_snapshots, "episodes": check_episodes}

# (series, time, feature) and the share of the grid that is observed, in steps times features.
SEQUENCES = {
    "exchange_rate": ((8, 6221, 1), 8 * 6221),
    "m4_hourly": ((414, 1008, 1), 169 * 748 + 245 * 1008),
    "etth1": ((1, 17420, 7), 17420 * 7),
    "taylor": ((1, 4032, 1), 4032),
    "nyc_taxi": ((1, 10320, 1), 10320),
    "air_passengers": ((1, 144, 1), 144),
    "temps": ((1, 3652, 1), 3650),
    "us_gasoline": ((1, 1578, 1), 1578),
    "heart_rate": ((1, 1800, 1), 1800),
    "sunspots": ((1, 2820, 1), 2820),
    "ilinet": ((1, 1305, 11), 1301 * 11 - 529 - 677 - 529),
    "australian_tourism": ((96, 36, 1), 96 * 36),
    "milk_incomplete": ((1, 168, 1), 155),
    "solar_tmy3": ((1, 8760, 3), 8760 * 3),
    "mocap6": ((6, 446, 12), 2058 * 12),
    "oist_branching": ((62, 30, 20), 62 * 30 * 20),
    "oist_primitives": ((6, 100, 28), 6 * 100 * 28),
    "basic_motions": ((80, 100, 6), 80 * 100 * 6),
    "japanese_vowels": ((640, 29, 12), 9961 * 12),
    "krumsiek11": ((4, 160, 11), 4 * 160 * 11),
    "toggleswitch": ((2, 100, 2), 2 * 100 * 2),
}
# Number of features, and how many particles at each time.
SNAPSHOTS = {
    "embryoid_body": (5, dict.fromkeys([0.0, 0.5, 1.0, 1.5, 2.0], 300)),
    "hesc": (5, {0.0: 92, 0.5: 102, 1.0: 66, 1.5: 172, 3.0: 138}),
    "gulf_of_mexico": (2, dict.fromkeys(map(float, range(9)), 111)),
    "gulf_of_mexico_small": (2, dict.fromkeys(map(float, range(9)), 111)),
    "gulf_of_mexico_benchmark": (2, {round(0.8 * i, 1): 200 for i in range(11)}),
    "pbmc": (30, dict.fromkeys(map(float, range(21)), 500)),
    "moscot_temporal": (1479, {10.0: 85, 10.5: 81, 11.0: 84}),
    "lotka_volterra_published": (2, dict.fromkeys(map(float, range(9)), 50)),
    "repressilator_published": (3, {0.75 * i: 50 for i in range(11)}),
    "lotka_volterra_benchmark": (2, dict.fromkeys(map(float, range(11)), 200)),
    "repressilator_benchmark": (3, dict.fromkeys(map(float, range(11)), 200)),
}
# Times that are fitted, tested at and forecast in the publications.
SPLITS = {
    "embryoid_body": ([0, 1, 2], [0.5, 1.5], []),
    "hesc": ([0, 1, 3], [0.5, 1.5], []),
    "gulf_of_mexico": ([0, 2, 4, 6, 8], [1, 3, 5, 7], []),
    "gulf_of_mexico_small": ([0, 2, 4, 6, 8], [1, 3, 5, 7], []),
    "gulf_of_mexico_benchmark": ([0, 1.6, 3.2, 4.8, 6.4], [0.8, 2.4, 4.0, 5.6], [7.2, 8.0]),
    "pbmc": (range(0, 21, 2), range(1, 21, 2), []),
    "lotka_volterra_published": ([0, 2, 4, 6, 8], [1, 3, 5, 7], []),
    "repressilator_published": ([0, 1.5, 3, 4.5, 6, 7.5], [0.75, 2.25, 3.75, 5.25, 6.75], []),
    "lotka_volterra_benchmark": (range(10), [10], [10]),
    "repressilator_benchmark": (range(10), [10], [10]),
}


@pytest.fixture
def load(data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """``load`` from the data folder only; skips where the folder lacks the files of a dataset."""
    monkeypatch.setenv("SEQDYN_DATA", str(data_dir))
    monkeypatch.setenv("SEQDYN_CACHE", str(tmp_path))

    def from_folder(name: str) -> xr.Dataset:
        missing = [f.path for f in datasets.info(name).files if not (data_dir / f.path).is_file()]
        if missing:
            pytest.skip(f"SEQDYN_DATA has no {missing[0]}")
        return datasets.load(name, download=False)

    return from_folder


def test_the_embedded_panel_loads_without_network_environment_and_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unavailable(*arguments: object, **options: object) -> None:
        raise AssertionError("only the package itself may be used here")

    monkeypatch.delenv("SEQDYN_DATA", raising=False)
    monkeypatch.setattr("socket.socket", unavailable)
    monkeypatch.setattr(files, "cache_folder", unavailable)

    data = datasets.load("nyc_flights")

    check_sequences(data)
    assert dict(data.sizes) == {"series": 18, "time": 8760, "feature": 1}
    assert data["target"].attrs["units"] == "departures / hour"
    assert data.attrs["licence"].startswith("CC0")
    assert int(data["target"].sum()) == 295_894
    assert observed_mask(data).all()


def test_the_panel_is_the_local_year_in_true_hours() -> None:
    time = datasets.load("nyc_flights")["time"]
    local = pd.DatetimeIndex(time.values, tz="UTC").tz_convert(time.attrs["timezone"])

    assert (np.diff(time.values) == np.timedelta64(1, "h")).all()
    assert local[0].isoformat() == "2013-01-01T00:00:00-05:00"
    assert local[-1].isoformat() == "2013-12-31T23:00:00-05:00"


def test_the_panel_has_whole_counts_quiet_nights_and_the_storm_of_february() -> None:
    data = datasets.load("nyc_flights")
    local = pd.DatetimeIndex(data["time"].values, tz="UTC").tz_convert("America/New_York")
    total = pd.Series(data["target"].sum(["series", "feature"]).values, index=local)
    per_day = total.resample("D").sum()

    assert (data["target"] % 1 == 0).all()
    assert float(data["target"].mean("time").min()) >= 0.5
    # From 2 to 5 o'clock nearly nobody leaves, at 8 most do; the clock changes twice within the year.
    assert total[(local.hour >= 2) & (local.hour < 5)].mean() < 0.1
    assert total.groupby(local.hour).mean().idxmax() == 8
    assert str(per_day.idxmin().date()) == "2013-02-09"
    assert per_day[per_day.index.day_of_week == 5].median() < 0.85 * per_day.median()


def test_the_panel_equals_its_checksum_file() -> None:
    recorded = _checksums("nyc_flights")["nyc_flights/nyc_flights.nc"]

    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() == recorded
    assert EMBEDDED.stat().st_size < 120_000


def test_the_panel_is_package_data() -> None:
    settings = configparser.ConfigParser()
    settings.read(CARDS.parent / "setup.cfg")

    assert "embedded/*" in settings["options.package_data"]["seqdyn.datasets"].split()


def test_loading_the_panel_needs_no_torch() -> None:
    code = "import sys, seqdyn.datasets as d; d.load('nyc_flights'); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=CARDS.parent, check=False).returncode == 0


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_have_the_sizes_of_their_source(name: str, load) -> None:
    shape, observed = SEQUENCES[name]

    data = load(name)

    assert data["target"].shape == shape
    assert int(observed_mask(data).sum()) == observed
    recipe = datasets.info(name)
    _check_facts(data, recipe, "target")
    if isinstance(recipe.freq, str):
        assert data["time"].attrs["freq"].startswith(recipe.freq)
    else:
        np.testing.assert_allclose(np.diff(data["time"].values), recipe.freq)


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_snapshots_have_their_times_and_particles(name: str, load) -> None:
    if name == "moscot_temporal":
        pytest.importorskip("anndata")
    num_features, counts = SNAPSHOTS[name]

    data = load(name)

    _check_facts(data, datasets.info(name), "x")
    assert data.sizes["feature"] == num_features
    times, found = np.unique(data["time"].values, return_counts=True)
    assert dict(zip(times.tolist(), found.tolist(), strict=True)) == counts
    assert (np.diff(data["time"].values) >= 0).all()


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_snapshots_name_the_published_split_in_the_order_of_time(name: str, load, tmp_path: Path) -> None:
    if name == "moscot_temporal":
        pytest.importorskip("anndata")
    data = load(name)
    times = np.unique(data["time"].values)
    parts = ("train_index", "held_out_index", "forecast_index")

    found = [times[data.attrs.get(part, [])].tolist() for part in parts]

    assert found == [list(part) for part in SPLITS.get(name, ([], [], []))]
    to_netcdf(data, tmp_path / "data.nc")
    kept = from_netcdf(tmp_path / "data.nc").attrs
    for part in parts:
        assert np.atleast_1d(kept.get(part, [])).tolist() == data.attrs.get(part, [])


def test_every_recipe_is_tested_or_has_no_recorded_checksum() -> None:
    tested = {*SEQUENCES, *SNAPSHOTS, "nyc_flights", "omniglot_small", "omniglot_runs"}

    assert tested | set(UNRECORDED) == set(NAMES)
    assert len(NAMES) == len(set(NAMES))


def test_exchange_rate_scores_as_published(load) -> None:
    # Seasonal naive with season 5 on five windows of 30 days: for one forecast CRPS is the absolute error.
    target = load("exchange_rate")["target"].values[:, :, 0]
    errors, scale = 0.0, 0.0
    for start in range(6221 - 150, 6221, 30):
        forecast = np.tile(target[:, start - 5 : start], 6)
        errors += np.abs(target[:, start : start + 30] - forecast).sum()
        scale += np.abs(target[:, start : start + 30]).sum()

    assert f"{errors / scale:.5f}" == "0.01075"


def test_m4_series_end_with_the_test_part(load, data_dir: Path) -> None:
    data = load("m4_hourly")
    future = pd.read_csv(data_dir / "m4_hourly/Hourly-test.csv", index_col=0)
    past = pd.read_csv(data_dir / "m4_hourly/Hourly-train.csv", index_col=0)

    np.testing.assert_array_equal(data["target"].values[:, -48:, 0], future.to_numpy())
    np.testing.assert_array_equal(
        data["target"].sel(series="H1").values[-748:-48, 0], past.loc["H1"].iloc[:700]
    )
    assert not observed_mask(data)[0, :260].any()


def test_gaps_of_the_milk_series_are_the_months_left_out(load) -> None:
    data = load("milk_incomplete")
    months = pd.DatetimeIndex(data["time"].values)[~observed_mask(data)[0, :, 0]].strftime("%Y-%m").tolist()

    assert months[:5] == ["1963-09", "1964-11", "1965-04", "1965-05", "1967-12"]


def test_reversed_weeks_come_out_in_order(load) -> None:
    data = load("us_gasoline")

    assert str(data["time"].values[0])[:10] == "1991-02-08"
    assert data["target"].values[0, [0, -1], 0].tolist() == [6621.0, 8864.0]


def test_the_sun_shines_at_noon_and_not_at_night(load) -> None:
    data = load("solar_tmy3")
    irradiance = data["target"].sel(feature="global_horizontal").isel(series=0)
    hour = irradiance["time"].dt.hour

    assert float(irradiance.where((hour < 4) | (hour > 20)).max()) == 0.0
    assert np.argmax(irradiance.groupby("time.hour").mean().values) in (11, 12)
    assert "02: 1996" in data["time"].attrs["source_years"]


def test_actions_of_the_exercise_sessions_match_their_table(load, data_dir: Path) -> None:
    data = load("mocap6")
    table = pd.read_csv(data_dir / "mocap6/actions_per_tstep.csv")
    names = ["", *data["action"].attrs["flag_meanings"].split()]
    found = [names[i] for i in data["action"].values[observed_mask(data)[:, :, 0]]]

    assert found == table["action_name"].tolist()
    assert (data["action"].values[~observed_mask(data)[:, :, 0]] == 0).all()


@pytest.mark.parametrize(("name", "parts"), [("basic_motions", (40, 40)), ("japanese_vowels", (270, 370))])
def test_labelled_recordings_keep_class_and_split(name: str, parts: tuple[int, int], load) -> None:
    data = load(name)

    assert [int((data["split"] == split).sum()) for split in ("train", "test")] == list(parts)
    assert len(np.unique(data["label"])) == {"basic_motions": 4, "japanese_vowels": 9}[name]


def test_branching_paths_are_softmax_codes(load) -> None:
    target = load("oist_branching")["target"].values

    np.testing.assert_allclose(target.reshape(62, 30, 2, 10).sum(-1), 1.0)


def test_characters_of_the_pool(load) -> None:
    data = load("omniglot_small")

    assert data["image"].shape == (2720, 105, 105)
    assert len(np.unique(data["alphabet"])) == 5
    assert len(np.unique(data["character"])) == 136
    assert set(np.unique(data["drawer"])) == set(range(1, 21))
    assert 0.01 < float(data["image"].mean()) < 0.15  # ink is rare: foreground is 1


def test_runs_of_one_shot_classification(load) -> None:
    data = load("omniglot_runs")

    check_episodes(data)
    assert data["support_x"].shape == data["query_x"].shape == (20, 20, 105 * 105)
    assert (np.sort(data["query_y"].values, axis=1) == np.arange(20)).all()


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'exchange_rate'"):
        datasets.load("exchange_rates")


def test_names_can_be_narrowed_to_a_kind() -> None:
    assert set(datasets.names("snapshots")) == set(SNAPSHOTS)
    assert datasets.names() == sorted(NAMES)


def test_a_checksum_cannot_replace_a_recorded_one() -> None:
    with pytest.raises(ValueError, match="leave sha256 out"):
        datasets.load("taylor", sha256="0" * 64)


@pytest.mark.parametrize("name", UNRECORDED)
def test_a_dataset_without_checksum_says_so_instead_of_downloading(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEQDYN_DATA", str(tmp_path))
    monkeypatch.setenv("SEQDYN_CACHE", str(tmp_path / "cache"))
    (file,) = datasets.info(name).files

    with pytest.raises(FileNotFoundError, match="sha256 not recorded") as caught:
        datasets.load(name)

    assert file.path in str(caught.value)
    assert str(file.url) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_card_and_checksums_agree_with_the_code(name: str) -> None:
    recipe = datasets.info(name)
    card = (CARDS / name / "README.md").read_text()
    recorded = _checksums(name)

    for fact in (recipe.title, recipe.source, recipe.licence, recipe.citation, recipe.units or "not stated"):
        assert fact in card
    for file in recipe.files:
        assert file.path in card
        assert recorded.get(file.path) == file.sha256
    for heading in ("Schema and sizes", "Time", "Split", "Preparation"):
        assert f"## {heading}\n" in card


def test_there_are_no_cards_of_other_datasets() -> None:
    assert {path.name for path in CARDS.iterdir() if path.is_dir()} == set(NAMES)


def test_recipes_are_frozen_facts() -> None:
    recipe = datasets.info("nyc_flights")

    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.title = "other"  # type: ignore[misc]
    assert all(re.fullmatch("[0-9a-f]{64}", f.sha256) for r in RECIPES for f in r.files if f.sha256)


def _check_facts(data: xr.Dataset, recipe: datasets.Recipe, variable: str) -> None:
    CHECKS[recipe.kind](data)
    for fact in ("title", "source", "licence", "citation"):
        assert data.attrs[fact] == getattr(recipe, fact)
    assert data[variable].attrs.get("units") == recipe.units


def _checksums(name: str) -> dict[str, str]:
    lines = (CARDS / name / "checksums.txt").read_text().splitlines()
    return {path: sha256 for sha256, path in (line.split() for line in lines if not line.startswith("#"))}
