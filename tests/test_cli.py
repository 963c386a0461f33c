"""The command line as a user runs it: files in, files out, and one clear line where something is wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

import seqdyn
from seqdyn import cli
from seqdyn._inputs import place
from seqdyn._outputs import check_run
from seqdyn.data import from_pandas, read_sequences, to_netcdf

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "pytorch_lightning", "pandas", "numpy", "xarray", "scipy", "matplotlib", "jsonargparse")
COLUMNS = ["--time", "ds", "--series", "id", "--value", "y"]
NAIVE = ["--season-length", "24", "--prediction-length", "24"]
TINY = (
    "--context-length 24 --prediction-length 24 --hidden-size 4 --num-blocks 1 --state-size 4 "
    "--embedding-size 4 --num-diffusion-steps 4 --batch-size 8 --batches-per-epoch 2 --max-epochs 2 --seed 3"
).split()

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command, which must succeed, and return what it prints."""

    def command(*words: object) -> str:
        status = cli.main([str(word) for word in words])
        shown = capsys.readouterr()
        assert status == 0, shown.err
        return shown.out

    return command


@pytest.fixture
def table() -> pd.DataFrame:
    """Two series of four days of hours, the second ending a day early."""
    hours = pd.date_range("2024-01-01", periods=96, freq="h")
    values = 5 + np.sin(2 * np.pi * np.arange(96) / 24)
    first = pd.DataFrame({"ds": hours, "id": "a", "y": values + np.linspace(0, 1, 96)})
    second = pd.DataFrame({"ds": hours[:72], "id": "b", "y": 3 * values[:72]})
    return pd.concat([first, second], ignore_index=True)


@pytest.fixture
def csv(table: pd.DataFrame, tmp_path: Path) -> Path:
    table.to_csv(tmp_path / "my.csv", index=False)
    return tmp_path / "my.csv"


@pytest.fixture
def naive(run: Run, csv: Path, tmp_path: Path) -> Path:
    """Folder of a fitted SeasonalNaive."""
    run("fit", "seasonal-naive", csv, *COLUMNS, *NAIVE, "-o", tmp_path / "naive")
    return tmp_path / "naive"


def test_help_costs_little_and_imports_nothing_heavy() -> None:
    code = f"""
import sys
from seqdyn.cli import main
status = main(["--help"])
sys.stderr.write(" ".join(set({HEAVY!r}) & set(sys.modules)))
raise SystemExit(status)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert done.stderr == ""
    assert all(command in done.stdout for command in cli.COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_version(run: Run) -> None:
    assert run("--version") == f"seqdyn {seqdyn.__version__}\n"


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(command: str, run: Run) -> None:
    shown = " ".join(run(command, "--help").split())

    assert f"usage: seqdyn {command}" in shown
    if command not in ("demo", "fit", "datasets"):
        assert f"Further options are those of the model: seqdyn {command} RUN --help." in shown


def test_a_run_is_a_folder_with_the_model_its_data_and_its_settings(naive: Path, table: pd.DataFrame) -> None:
    assert type(seqdyn.load(naive)) is seqdyn.models.SeasonalNaive
    expected = from_pandas(table, time="ds", series="id", value="y")
    # Reading a CSV rounds the last digit of a float.
    xr.testing.assert_allclose(read_sequences(naive / "data.nc")["target"], expected["target"], rtol=1e-15)
    settings = yaml.safe_load((naive / "fit.yaml").read_text())
    assert settings["model"] == "seasonal-naive"
    assert settings["time"] == "ds"
    assert settings["season_length"] == 24


def test_a_forecast_is_that_of_the_library(run: Run, naive: Path, csv: Path, tmp_path: Path) -> None:
    shown = run("forecast", naive, "-o", tmp_path / "f.nc", "--num-samples", 3, "--plot", tmp_path / "f.png")

    context = read_sequences(csv, time="ds", series="id", value="y")
    expected = seqdyn.load(naive).forecast(context, num_samples=3)
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "f.nc")["target"], expected["target"])
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert "3 sample × 2 series × 24 time × 1 feature" in shown
    assert str(tmp_path / "f.png") in shown


def test_a_forecast_as_a_table(run: Run, naive: Path, tmp_path: Path) -> None:
    run("forecast", naive, "-o", tmp_path / "f.csv", "--num-samples", 2)

    table = pd.read_csv(tmp_path / "f.csv")
    assert len(table) == 2 * 2 * 24
    assert {"sample", "series", "time"} <= set(table.columns)


def test_other_data_are_read_as_those_of_the_run(
    run: Run, naive: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    later = table.assign(ds=table["ds"] + pd.Timedelta(days=7), y=table["y"] * 2)
    later.to_csv(tmp_path / "later.csv", index=False)

    run("forecast", naive, "--data", tmp_path / "later.csv", "-o", tmp_path / "f.nc", "--num-samples", 1)

    forecast = xr.load_dataset(tmp_path / "f.nc")
    assert forecast["time"].values[0] == np.datetime64("2024-01-12T00")
    last_day = later[(later["id"] == "a")]["y"].to_numpy()[-24:]
    np.testing.assert_allclose(forecast["target"].sel(series="a").values.ravel(), last_day, rtol=1e-6)


def test_settings_beside_an_output_give_it_again(run: Run, naive: Path, tmp_path: Path) -> None:
    run("forecast", naive, "-o", tmp_path / "f.nc", "--num-samples", 2, "--seed", 5)
    first = xr.load_dataset(tmp_path / "f.nc")
    (tmp_path / "f.nc").unlink()

    run("forecast", "--config", tmp_path / "f.yaml")

    xr.testing.assert_identical(xr.load_dataset(tmp_path / "f.nc"), first)


def test_a_printed_configuration_can_be_fitted(run: Run, csv: Path, tmp_path: Path) -> None:
    words = ["fit", "seasonal-naive", csv, *COLUMNS, *NAIVE, "-o", tmp_path / "run"]
    (tmp_path / "c.yaml").write_text(run(*words, "--print_config"), encoding="utf-8")
    assert not (tmp_path / "run").exists()

    run("fit", "--config", tmp_path / "c.yaml")

    assert seqdyn.load(tmp_path / "run").season_length == 24


def test_evaluation_prints_the_pooled_scores_and_writes_those_of_each_window(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    run("fit", "seasonal-naive", csv, *COLUMNS, *NAIVE, "-o", tmp_path / "run", "--holdout", 48)

    shown = run("evaluate", tmp_path / "run", "--num-windows", 2, "--num-samples", 2, "-o", tmp_path / "s.nc")
    run("evaluate", tmp_path / "run", "--num-windows", 2, "--num-samples", 2, "-o", tmp_path / "s.csv")

    data = read_sequences(csv, time="ds", series="id", value="y")
    scores = seqdyn.evaluate(seqdyn.load(tmp_path / "run"), data, num_windows=2, num_samples=2)
    assert f"crps               {scores.attrs['crps']:.4g}\n" in shown
    xr.testing.assert_allclose(xr.load_dataset(tmp_path / "s.nc")["quantile_loss"], scores["quantile_loss"])
    table = pd.read_csv(tmp_path / "s.csv")
    # Each series and window; the second series has no value in the last window, hence no score there.
    assert len(table) == 4
    assert table["nd"].notna().sum() == 3


def test_a_table_of_scores_is_in_the_time_of_the_data(run: Run, csv: Path, tmp_path: Path) -> None:
    words = [*COLUMNS, *NAIVE, "--timezone", "Europe/Paris", "--holdout", 24, "-o", tmp_path / "run"]
    run("fit", "seasonal-naive", csv, *words)

    run("evaluate", tmp_path / "run", "--num-windows", 1, "--num-samples", 1, "-o", tmp_path / "s.csv")

    table = pd.read_csv(tmp_path / "s.csv")
    assert set(table["start"]) == {"2024-01-04 00:00:00+01:00"}
    assert set(table["end"]) == {"2024-01-04 23:00:00+01:00"}


def test_a_series_that_ended_early_is_named_with_a_remedy_for_the_shell(
    table: pd.DataFrame, naive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table[(table["id"] != table["id"].iloc[0]) | (table["ds"] < "2024-01-02 12:00")]
    table.to_csv(tmp_path / "short.csv", index=False)

    words = ["forecast", naive, "--data", tmp_path / "short.csv", "-o", tmp_path / "f.nc"]
    assert cli.main([str(word) for word in words]) == 0

    warning = [line for line in capsys.readouterr().err.splitlines() if "ends before the data do" in line]
    assert len(warning) == 1
    assert warning[0].endswith("If that is no gap, forecast from a file that stops there: --data FILE.")


def test_an_option_of_the_reader_is_named_as_the_shell_has_it(
    table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table["y"] = table["y"].map(lambda value: f"{value:.1f}".replace(".", ","))
    table.to_csv(tmp_path / "euro.csv", index=False, sep=";")

    status = cli.main(["fit", "seasonal-naive", str(tmp_path / "euro.csv"), *COLUMNS, *NAIVE, "-o", "x"])

    assert status == 2
    assert "decimal=','" in (error := capsys.readouterr().err) and "--read-options '{NAME: VALUE}'" in error


def test_evaluation_warns_of_training_data_and_of_a_series_that_is_not_scored(
    naive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(naive), "--num-windows", "1", "--num-samples", "1"]) == 0

    warning = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seqdyn: warning: ")]
    assert len(warning) == 2
    assert "the model was trained on data up to 2024-01-04" in warning[0]
    assert "1 of 2 series are observed in no window and count nothing, the first is 'b'" in warning[1]


def test_tsdiff_from_a_file_to_draws(run: Run, csv: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("fit", "tsdiff", csv, *COLUMNS, *TINY, "--lags", "24", "--lower", 0, "-o", folder)
    run("forecast", folder, "-o", tmp_path / "f.nc", "--num-samples", 2, "--seed", 0, "--guidance_scale", 2)
    run("sample", folder, "-o", tmp_path / "d.nc", "--num-samples", 3, "--seed", 1)

    model = seqdyn.load(folder)
    assert model.hparams.lags == (24,)
    assert model.hparams.lower == 0.0
    assert model.history.sizes["epoch"] == 2
    context = read_sequences(csv, time="ds", series="id", value="y")
    expected = model.forecast(context, num_samples=2, seed=0, guidance_scale=2.0)
    xr.testing.assert_allclose(xr.load_dataset(tmp_path / "f.nc")["target"], expected["target"])
    draws = model.sample(3, seed=1)
    xr.testing.assert_allclose(xr.load_dataset(tmp_path / "d.nc")["target"], draws["target"])


def test_the_sizes_of_the_data_need_not_be_typed(run: Run, table: pd.DataFrame, tmp_path: Path) -> None:
    wide = table.assign(z=table["y"] ** 2)
    wide.to_csv(tmp_path / "wide.csv", index=False)

    run(
        "fit",
        "tsdiff",
        tmp_path / "wide.csv",
        "--time",
        "ds",
        "--series",
        "id",
        "--value",
        "y,z",
        *TINY,
        "-o",
        tmp_path / "r",
    )

    assert seqdyn.load(tmp_path / "r").hparams.num_features == 2


@pytest.fixture
def priced(table: pd.DataFrame, tmp_path: Path) -> Path:
    """One series of four days with a covariate that is known for a fifth."""
    future = pd.DataFrame({"ds": pd.date_range("2024-01-05", periods=24, freq="h"), "id": "a"})
    rows = pd.concat([table[table["id"] == "a"], future], ignore_index=True)
    rows.assign(price=np.arange(len(rows)) % 7.0).to_csv(tmp_path / "priced.csv", index=False)
    return tmp_path / "priced.csv"


def test_rows_without_a_value_are_the_future(
    run: Run, priced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, columns = tmp_path / "r", [*COLUMNS, "--covariates", "price"]
    run("fit", "tsdiff", priced, *columns, *TINY, "--holdout", 24, "-o", folder)
    run("forecast", folder, "-o", tmp_path / "f.nc", "--num-samples", 1)
    words = ["evaluate", folder, "--num-windows", 1, "--num-samples", 1, "-o", tmp_path / "s.nc"]
    assert cli.main([str(word) for word in words]) == 0

    assert seqdyn.load(folder).hparams.num_covariates == 1
    assert seqdyn.load(folder).data_info["time_end"].startswith("2024-01-03")
    assert xr.load_dataset(tmp_path / "f.nc")["time"].values[0] == np.datetime64("2024-01-05")
    assert xr.load_dataset(tmp_path / "s.nc")["start"].values[0] == np.datetime64("2024-01-04")
    assert "warning" not in capsys.readouterr().err


def test_draws_take_the_covariates_of_a_window(run: Run, priced: Path, tmp_path: Path) -> None:
    folder, columns = tmp_path / "r", [*COLUMNS, "--covariates", "price"]
    run("fit", "tsdiff", priced, *columns, *TINY, "-o", folder)
    window = read_sequences(folder / "data.nc").isel(time=slice(0, 48))
    to_netcdf(window, tmp_path / "window.nc")

    run("sample", folder, "-o", tmp_path / "d.nc", "--num-samples", 2, "--covariates", tmp_path / "window.nc")

    assert xr.load_dataset(tmp_path / "d.nc")["target"].sizes["time"] == 48


def test_a_finished_fit_can_be_continued_by_resume_only(run: Run, csv: Path, tmp_path: Path) -> None:
    words = ["fit", "tsdiff", str(csv), *COLUMNS, *TINY, "-o", str(tmp_path / "run")]
    run(*words)
    assert cli.main(words) == 2

    run(*words, "--resume", "--max-epochs", 3)

    assert seqdyn.load(tmp_path / "run").history.sizes["epoch"] == 3


KILL_AT = """
import os, pathlib, sys
from seqdyn import cli
from seqdyn.data import convert

def die(*_):
    os._exit(9)

name = sys.argv.pop(1)
if name == "writing":
    convert.xr.Dataset.to_netcdf = lambda data, path, **_: (pathlib.Path(path).write_bytes(b"half"), die())
else:
    replace = os.replace
    os.replace = lambda *paths: die() if pathlib.Path(paths[1]).name == name else replace(*paths)
cli.main()
"""


@pytest.mark.parametrize("moment", ["writing", "model"])
def test_a_run_killed_before_it_begins_can_begin_again(
    moment: str, csv: Path, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "run"
    words = fit_words(csv, folder)
    killed = subprocess.run([sys.executable, "-c", KILL_AT, moment, *words], cwd=ROOT, capture_output=True)
    assert killed.returncode == 9, killed.stderr
    assert not (folder / "model").exists()

    check_run(folder, resume=True)
    run(*words)

    assert sorted(os.listdir(folder)) == ["data.nc", "fit.yaml", "model"]
    assert read_sequences(folder / "data.nc").sizes["time"] == 96


def test_a_file_called_data_of_the_users_is_not_overwritten(csv: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "data.nc").write_text("mine")

    assert cli.main(fit_words(csv, tmp_path / "run")) == 2

    assert (tmp_path / "run" / "data.nc").read_text() == "mine"


def test_a_data_set_can_be_fitted_by_its_name(run: Run, tmp_path: Path) -> None:
    run("fit", "seasonal-naive", "nyc_flights", *NAIVE, "-o", tmp_path / "run")

    assert seqdyn.load(tmp_path / "run").data_info["num_series"] == 18


def test_data_sets_are_listed_described_and_exported(run: Run, tmp_path: Path) -> None:
    names = [line.split()[0] for line in run("datasets").splitlines()]
    assert names == seqdyn.datasets.names()

    shown = run("datasets", "nyc_flights", "-o", tmp_path / "flights.nc")

    assert "licence" in shown
    assert xr.load_dataset(tmp_path / "flights.nc")["target"].sizes["time"] == 8760


def test_a_new_model_in_the_namespace_needs_no_change_of_the_command_line(
    run: Run, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GrandMean(seqdyn.models.SeasonalNaive):
        """The same value for ever.

        Args:
            prediction_length: Steps to forecast.
            num_series: Number of series.
        """

        def __init__(self, prediction_length: int, num_series: int, season_length: int = 1) -> None:
            super().__init__(season_length, prediction_length)
            self.hyperparameters["num_series"] = num_series

    monkeypatch.setattr(seqdyn.models, "GrandMean", GrandMean, raising=False)
    monkeypatch.setattr(seqdyn.models, "__all__", [*seqdyn.models.__all__, "GrandMean"])

    run("fit", "grand-mean", csv, *COLUMNS, "--prediction-length", 2, "-o", tmp_path / "run")
    run("forecast", tmp_path / "run", "-o", tmp_path / "f.nc")

    assert seqdyn.load(tmp_path / "run").hyperparameters["num_series"] == 2
    assert xr.load_dataset(tmp_path / "f.nc").sizes["time"] == 2


TINY_RNN = (
    "--hidden-size 8 --input-size 3 --batch-size 16 --batches-per-epoch 2 --max-epochs 2 --seed 1".split()
)


@pytest.fixture
def states(tmp_path: Path) -> Path:
    """Two animals, each awake, asleep or at rest, with a gap and of unequal lengths."""
    rng = np.random.default_rng(0)
    names = ["asleep", "awake", "rest"]
    frames = [
        pd.DataFrame({"animal": one, "t": np.arange(size), "state": rng.choice(names, size)})
        for one, size in (("m1", 60), ("m2", 45))
    ]
    pd.concat(frames, ignore_index=True).drop(index=7).to_csv(tmp_path / "states.csv", index=False)
    return tmp_path / "states.csv"


def test_a_network_learns_symbols_from_a_file_and_draws_labels(
    run: Run, states: Path, tmp_path: Path
) -> None:
    columns = ["--series", "animal", "--time", "t", "--value", "state"]
    later = pd.read_csv(states)
    later.replace("rest", "awake").to_csv(tmp_path / "val.csv", index=False)

    shown = run(
        "fit", "hmmrnn", states, *columns, "--num-steps", 3, *TINY_RNN, "--val", tmp_path / "val.csv",
        "-o", tmp_path / "run",
    )  # fmt: skip
    run(
        "sample",
        tmp_path / "run",
        "--num-samples",
        4,
        "--keep",
        "symbol",
        "--seed",
        2,
        "-o",
        tmp_path / "d.csv",
    )

    model = seqdyn.load(tmp_path / "run")
    assert "Next: seqdyn sample" in shown
    assert model.hparams.num_symbols == 3
    assert model.history.sizes["epoch"] == 2
    assert model.data_info["symbols"] == ["asleep", "awake", "rest"]
    assert bool(np.isfinite(model.history["val_loss"]).all())
    table = pd.read_csv(tmp_path / "d.csv")
    codes = model.sample(4, seed=2)["symbol"].values.ravel()
    assert table["symbol"].tolist() == [model.data_info["symbols"][code] for code in codes]
    kept = seqdyn.data.read_symbols(tmp_path / "run" / "data.nc")
    xr.testing.assert_identical(kept, seqdyn.data.read_symbols(states, series="animal", value="state"))


def test_a_known_process_is_emulated_without_a_file(run: Run, tmp_path: Path) -> None:
    run("fit", "hmmrnn", "--process", "two", *TINY_RNN, "--num-steps", 5, "-o", tmp_path / "run")
    run("sample", tmp_path / "run", "--num-samples", 2, "-o", tmp_path / "d.nc")

    assert seqdyn.load(tmp_path / "run").hparams.process == "two"
    assert not (tmp_path / "run" / "data.nc").exists()
    assert xr.load_dataset(tmp_path / "d.nc")["symbol"].sizes == {"sample": 2, "time": 5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-o {new}", "seqdyn fit hmmrnn needs --data, a file, or --process"),
        ("--process tree -o {new}", "there is no preset 'tree'; choose from default, two"),
        ("{states} --value state -o {new}", "several rows for time 0"),
        ("{states} --series animal -o {new}", "a window needs 60 symbols in a row"),
        ("{states} --series animal --num-steps 5 --num-symbols 4 -o {new}", "build it with num_symbols=3"),
        ("{states} --series animal --symbols awake,rest -o {new}", "'asleep' in row"),
        ("{csv} {columns} -o {new}", "column 'y' holds 5.269"),
        (
            "nyc_flights -o {new}",
            "the data set nyc_flights holds sequences of numbers, this model learns sequences of symbols",
        ),
    ],
)
def test_what_is_wrong_with_symbols_is_one_line(
    words: str, message: str, states: Path, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words.format(states=states, csv=csv, columns=" ".join(COLUMNS), new=tmp_path / "new")

    assert cli.main(["fit", "hmmrnn", *given.split()]) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seqdyn: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "new").exists()


# A bridge of few particles, as the shell builds it.
TINY_BRIDGE = "--volatility 0.3 --reference Zero --num-steps 3 --max-epochs 1 --seed 1".split()


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Four snapshots of ten cells with two measured features, and a column that is none."""
    rng = np.random.default_rng(0)
    day = np.repeat([0.0, 1.0, 2.0, 4.0], 10)
    frame = pd.DataFrame({"day": day, "pc1": day + rng.normal(0, 0.3, 40), "pc2": rng.normal(0, 0.3, 40)})
    frame.assign(depth=rng.integers(100, 999, 40)).to_csv(tmp_path / "cells.csv", index=False)
    return tmp_path / "cells.csv"


CELLS = ["--time", "day", "--value", "[pc1, pc2]"]


@pytest.fixture
def bridge(run: Run, cells: Path, tmp_path: Path) -> Path:
    """Folder of a fitted SchrodingerBridge."""
    run("fit", "schrodinger-bridge", cells, *CELLS, *TINY_BRIDGE, "-o", tmp_path / "bridge")
    return tmp_path / "bridge"


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_a_bridge_is_fitted_to_a_file_of_snapshots(run: Run, cells: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shown = run(
        "fit", "schrodinger-bridge", cells, *CELLS, *TINY_BRIDGE, "--reference", "Linear", "-o", folder
    )

    model = seqdyn.load(folder)
    assert f"Next: seqdyn infer {folder} -o paths.nc --plot paths.png" in shown
    assert model.hparams.num_features == 2
    assert model.reference_parameters.attrs["reference"] == "Linear"
    data = seqdyn.data.read_snapshots(cells, time="day", value=["pc1", "pc2"])
    xr.testing.assert_identical(seqdyn.data.read_snapshots(folder / "data.nc"), data)
    expected = seqdyn.models.SchrodingerBridge(2, 0.3, "Linear", num_steps=3).fit(data, max_epochs=1, seed=1)
    assert float(model.divergence) == float(expected.divergence)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("estimate", "estimate"),
        ("0.3", 0.3),
        ("[0.2, 0.4]", (0.2, 0.4)),
        ("[[1, 0], [0, 2]]", ((1, 0), (0, 2))),
    ],
)
def test_a_volatility_is_typed_as_a_word_a_number_or_several(
    typed: str, value: Any, run: Run, cells: Path, tmp_path: Path
) -> None:
    words = [*CELLS, *TINY_BRIDGE, "--num-simulations", 0, "--volatility", typed]

    run("fit", "schrodinger-bridge", cells, *words, "-o", tmp_path / "run")

    assert seqdyn.load(tmp_path / "run").hparams.volatility == value


def test_cells_of_an_annotated_matrix_are_taken_by_their_representation(run: Run, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata", reason="reading .h5ad needs anndata")
    rng = np.random.default_rng(0)
    cells = anndata.AnnData(rng.poisson(3.0, (30, 7)).astype(np.float32))
    cells.obs["stage"] = np.repeat(["E8.5", "E9.0", "E10.0"], 10)
    cells.obsm["X_pca"] = rng.normal(size=(30, 3))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = ["fit", "schrodinger-bridge", tmp_path / "cells.h5ad", "--time", "stage", *TINY_BRIDGE]

    run(*words, "--representation", "X_pca", "-o", tmp_path / "pca")
    run(*words, "--num-components", 2, "-o", tmp_path / "genes")
    run("infer", tmp_path / "pca", "--data", tmp_path / "cells.h5ad", "-o", tmp_path / "p.nc")

    assert seqdyn.load(tmp_path / "pca").data_info["features"] == ["X_pca_0", "X_pca_1", "X_pca_2"]
    assert seqdyn.load(tmp_path / "genes").hparams.num_features == 7
    assert xr.load_dataset(tmp_path / "p.nc")["x"].sizes["feature"] == 3


def test_draws_of_a_bridge_are_those_of_the_library(run: Run, bridge: Path, tmp_path: Path) -> None:
    few = ["--num-samples", 6, "--seed", 2]
    shown = run("forecast", bridge, "--times", "[5, 6]", "--start", "last", *few, "-o", tmp_path / "f.nc")
    run("marginal", bridge, "--times", "[0.5, 3]", *few, "-o", tmp_path / "m.nc")
    run("infer", bridge, *few, "-o", tmp_path / "p.nc")

    model = seqdyn.load(bridge)
    data = seqdyn.data.read_snapshots(bridge / "data.nc")
    few_samples: dict[str, Any] = {"num_samples": 6, "seed": 2}
    forecast, between = model.forecast([5, 6], **few_samples), model.marginal([0.5, 3], **few_samples)
    assert "forecast: 6 particle × 2 time × 2 feature\nextrapolated after 4\n" in shown
    for name, expected in (("f", forecast), ("m", between), ("p", model.infer(data, **few_samples))):
        xr.testing.assert_identical(xr.load_dataset(tmp_path / f"{name}.nc")["x"], expected["x"])
    assert xr.load_dataset(tmp_path / "f.nc").attrs["extrapolation_from"] == 4.0


def test_paths_can_be_asked_for_at_one_time_through_other_cells_and_as_a_table(
    run: Run, bridge: Path, cells: Path, tmp_path: Path
) -> None:
    others = pd.read_csv(cells)[::2]
    others.to_csv(tmp_path / "others.csv", index=False)

    run(
        "infer",
        bridge,
        "--data",
        tmp_path / "others.csv",
        "--times",
        2,
        "--num-samples",
        8,
        "-o",
        tmp_path / "p.csv",
    )

    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns) == ["particle", "time", "pc1", "pc2"]
    assert set(table["time"]) == {2.0}
    observed = others.loc[others["day"] == 2, "pc1"].to_numpy()
    assert len(table) == 8
    assert np.abs(table["pc1"].to_numpy()[:, None] - observed).min(axis=1).max() < 1e-9


def test_snapshots_are_left_out_one_by_one(run: Run, bridge: Path, tmp_path: Path) -> None:
    words = ["evaluate", bridge, "--num-samples", 20, "--max-epochs", 1, "--seed", 0, "--metrics", "w1,swd"]

    shown = run(*words, "-o", tmp_path / "s.nc", "--plot", tmp_path / "s.png")
    run(*words, "-o", tmp_path / "s.csv")

    data = seqdyn.data.read_snapshots(bridge / "data.nc")
    options: dict[str, Any] = {"num_samples": 20, "max_epochs": 1, "seed": 0, "metrics": ["w1", "swd"]}
    scores = seqdyn.evaluate(seqdyn.load(bridge), data, **options)
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "s.nc")["score"], scores["score"])
    mean = scores["score"].sel({"method": "model"}).mean("time").values
    rows = {words[0]: words[1:] for words in map(str.split, shown.splitlines()) if words}
    assert "mean over 2 times" in shown
    assert rows["w1"] == ["swd"]
    assert rows["model"] == [f"{value:.4g}" for value in mean]
    table = pd.read_csv(tmp_path / "s.csv")
    assert list(table.columns) == ["method", "time", "metric", "score"]
    assert len(table) == 5 * 2 * 2
    assert is_picture(tmp_path / "s.png")


@pytest.mark.parametrize(
    "words",
    [
        "forecast {bridge} --times [5,6,7]",
        "infer {bridge}",
        "marginal {bridge} --times [1,1.5]",
        "marginal {bridge} --times 1.5",  # at which there is no snapshot to draw beside
    ],
)
def test_draws_of_a_bridge_are_drawn(words: str, run: Run, bridge: Path, tmp_path: Path) -> None:
    run(*words.format(bridge=bridge).split(), "--num-samples", 5, "--plot", tmp_path / "p.png")

    assert is_picture(tmp_path / "p.png")


def test_a_saved_bridge_needs_no_data(run: Run, bridge: Path, tmp_path: Path) -> None:
    run("marginal", bridge / "model", "--times", 1, "--num-samples", 5, "--plot", tmp_path / "p.png")

    assert is_picture(tmp_path / "p.png")
    assert cli.main(["infer", str(bridge / "model"), "-o", str(tmp_path / "p.nc")]) == 2


def test_one_of_several_conditions_is_drawn_beside_its_own_snapshots(
    run: Run, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = seqdyn.data.read_snapshots(cells, time="day", value=["pc1", "pc2"])
    data = data.assign_coords(condition=("particle", np.tile(["control", "drug"], 20)))
    to_netcdf(data, tmp_path / "both.nc")
    run("fit", "schrodinger-bridge", tmp_path / "both.nc", *TINY_BRIDGE, "-o", tmp_path / "run")
    beside = []
    draw = seqdyn.plot.marginals
    monkeypatch.setattr(seqdyn.plot, "marginals", lambda x, y: beside.append(y) or draw(x, y), raising=False)
    words = ["--times", 2, "--condition", "drug", "--num-samples", 4]

    run("marginal", tmp_path / "run", *words, "-o", tmp_path / "m.csv", "--plot", tmp_path / "m.png")
    shown = run(
        "evaluate", tmp_path / "run", "--num-samples", 9, "--max-epochs", 1, "--plot", tmp_path / "s.png"
    )

    table = pd.read_csv(tmp_path / "m.csv")
    assert table["condition"].tolist() == ["drug"] * 4
    assert set(beside[0]["condition"].values) == {"drug"}
    assert "mean over 2 conditions and 2 times" in shown
    assert is_picture(tmp_path / "s.png")


@pytest.mark.parametrize("ending", ["csv", "nc"])
def test_a_data_set_of_snapshots_is_exported_and_fitted(ending: str, run: Run, tmp_path: Path) -> None:
    name = "lotka_volterra_published"
    try:
        data = seqdyn.datasets.load(name, download=False)
    except FileNotFoundError:
        pytest.skip(f"{name} is not there; it needs SEQDYN_DATA.")
    run("datasets", name, "-o", tmp_path / f"lv.{ending}")

    run("fit", "schrodinger-bridge", tmp_path / f"lv.{ending}", *TINY_BRIDGE, "-o", tmp_path / "run")

    kept = seqdyn.data.read_snapshots(tmp_path / "run" / "data.nc")
    np.testing.assert_allclose(kept["x"], data["x"], rtol=1e-15)
    np.testing.assert_array_equal(kept["time"], data["time"])
    assert kept["feature"].values.tolist() == data["feature"].values.tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fit schrodinger-bridge {cells} -o {new}", "fit schrodinger-bridge needs --volatility: Noise of"),
        (
            "fit schrodinger-bridge {cells} {columns} --volatility little -o {new}",
            "or 'estimate', got 'little'",
        ),
        (
            "fit schrodinger-bridge {cells} {columns} --volatility 1 --reference Foxes -o {new}",
            "there is no reference 'Foxes'; give one of GradientField, Linear",
        ),
        (
            "fit schrodinger-bridge {cells} {columns} --volatility 1 --holdout 1 -o {new}",
            "--holdout counts steps, and snapshots have none; leave it out",
        ),
        (
            "fit schrodinger-bridge nyc_flights --volatility 1 -o {new}",
            "the data set nyc_flights holds sequences of numbers, this model learns snapshots; choose from",
        ),
        (
            "fit seasonal-naive hesc {naive} -o {new}",
            "the data set hesc holds snapshots, this model learns sequences of numbers; choose from",
        ),
        ("fit schrodinger-bridge {cells} --time hour --volatility 1 -o {new}", "'hour'"),
        ("forecast {bridge} --times 9", "the forecast would be lost; give a file: -o forecast.nc"),
        ("infer {bridge}", "the paths would be lost; give a file: -o paths.nc or --plot paths.png"),
        ("marginal {bridge} -o {new}.nc", "{bridge} needs --times: Increasing times."),
        ("marginal {bridge} --times noon -o {new}.nc", "--times is noon, but it must be a list of float"),
        ("marginal {bridge} --times 9 -o {new}.nc", "time 9 lies outside the snapshots"),
        ("forecast {bridge} --times 1 -o {new}.nc", "time 1 is not after the snapshot at 4"),
        ("forecast {bridge} --times 9 --data {cells} -o {new}.nc", "{bridge} has no option --data"),
        ("sample {bridge} -o {new}.nc", "has no verb sample; it has forecast, infer, marginal."),
        ("evaluate {bridge} --num-windows 1", "{bridge} has no option --num-windows"),
        ("evaluate {bridge} --metrics mse", "metrics must list some of"),
        ("infer {bridge} --data {cells} --value pc1 -o {new}.nc", "the snapshots have 1 features"),
    ],
)
def test_what_is_wrong_with_snapshots_is_one_line(
    words: str,
    message: str,
    bridge: Path,
    cells: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"columns": "--time day --value pc1,pc2", "naive": " ".join(NAIVE)}
    places = {"bridge": bridge, "cells": cells, "new": tmp_path / "new"}
    before = sorted(os.listdir(tmp_path))
    capsys.readouterr()

    assert cli.main(words.format(**places, **options).split()) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seqdyn: error: ")]
    assert len(errors) == 1
    assert message.format(**places) in errors[0]
    assert sorted(os.listdir(tmp_path)) == before


def test_gaps_of_sequences_are_filled_by_the_same_command(
    run: Run, table: pd.DataFrame, tmp_path: Path
) -> None:
    gap = (table["id"] == "a") & table["ds"].between("2024-01-02 06:00", "2024-01-02 11:00")
    table[~gap].to_csv(tmp_path / "gap.csv", index=False)
    folder = tmp_path / "run"
    run("fit", "tsdiff", tmp_path / "gap.csv", *COLUMNS, "--freq", "h", *TINY, "-o", folder)
    words = ["infer", folder, "--num-samples", 2, "--seed", 0, "-o", tmp_path / "f.nc"]

    run(*words, "--plot", tmp_path / "f.png")

    data = read_sequences(folder / "data.nc")
    expected = seqdyn.load(folder).infer(data, num_samples=2, seed=0)
    filled = xr.load_dataset(tmp_path / "f.nc")["target"]
    xr.testing.assert_allclose(filled, expected["target"])
    assert int(filled.sel(series="a").isnull().sum()) == 0
    assert is_picture(tmp_path / "f.png")


def test_a_picture_of_scores_over_windows_is_one_of_coverage(run: Run, naive: Path, tmp_path: Path) -> None:
    words = ["evaluate", naive, "--num-windows", 1, "--num-samples", 2]

    run(*words, "--plot", tmp_path / "s.png")

    assert is_picture(tmp_path / "s.png")


def test_the_demonstration_gets_its_arguments(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    calls = []

    def main(output: str = "demo", seed: int = 0) -> None:
        calls.append((output, seed))

    monkeypatch.setattr("seqdyn.demo.main", main)
    run("demo")
    run("demo", "--output", "elsewhere", "--seed", 4)

    assert calls == [("demo", 0), ("elsewhere", 4)]


def fit_words(csv: Path, folder: Path) -> list[str]:
    return ["fit", "seasonal-naive", str(csv), *COLUMNS, *NAIVE, "-o", str(folder)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("forget", "there is no command 'forget'; commands are demo, fit"),
        ("fit", "name a model and a file: seqdyn fit MODEL DATA -o RUN; models are hmmrnn, linear"),
        ("fit prophet x.csv", "there is no model 'prophet'; models are hmmrnn, linear"),
        ("fit seasonal-naive -o {new}", "seqdyn fit seasonal-naive needs --data"),
        ("fit seasonal-naive {csv} -o {new}", "seqdyn fit seasonal-naive needs --season-length: Season m"),
        ("fit seasonal-naive {csv} {naive}", "seqdyn fit seasonal-naive needs --output: folder of the run"),
        (
            "fit seasonal-naive no.csv {naive} -o {new}",
            "there is no file no.csv and no data set of that name",
        ),
        ("fit seasonal-naive {csv} {naive} -o {new} --value z", "'z'"),
        (
            "fit seasonal-naive {csv} {columns} {naive} -o {new} --season-lenght 3",
            "did you mean --season-length?",
        ),
        ("fit seasonal-naive {csv} {columns} {naive} -o {new} --season-length day", "--season-length is day"),
        (
            "fit seasonal-naive {csv} {columns} {naive} -o {new} --holdout 96",
            "--holdout is 96, but the data has 96",
        ),
        ("fit seasonal-naive {csv} {columns} {naive} -o {tmp}/a/b", "there is no folder"),
        ("fit seasonal-naive {csv} {columns} {naive} -o {csv}", "is a file; a run needs a folder"),
        ("fit seasonal-naive {csv} {columns} {naive} -o {tmp}", "holds 'my.csv' but no run"),
        ("fit tsdiff {csv} {columns} -o {new}", "prediction_length"),
        (
            "fit seasonal-naive {csv} {columns} {naive} -o {new} --read-options.colums y",
            "--read-options names what reading",
        ),
        (
            "fit tsdiff {csv} --prediction-length 4 --lower 0 -o {new} --trainer-options.acelerator cpu",
            "names 'acelerator', which the trainer does not know; did you mean accelerator?",
        ),
        ("forecast", "name the folder of a run or model: seqdyn forecast RUN"),
        ("forecast {tmp} -o {tmp}/f.nc", "is not a model folder"),
        ("forecast nowhere -o {tmp}/f.nc", "there is no model folder at nowhere"),
        ("evaluate nowhere --num-windows 1", "there is no model folder at nowhere"),
        ("fit --config {csv}", "must hold options as NAME: VALUE"),
        ("datasets nothing", "there is no dataset 'nothing'"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    words: str, message: str, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"csv": csv, "tmp": tmp_path, "new": tmp_path / "new"}
    options = {"columns": " ".join(COLUMNS), "naive": " ".join(NAIVE)}

    status = cli.main(words.format(**places, **options).split())

    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("seqdyn: error: ")]
    assert status == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in shown.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("forecast {naive}", "the forecast would be lost; give a file: -o forecast.nc"),
        ("forecast {naive} -o {tmp}", "is a folder; name a file in it"),
        ("forecast {naive} -o {tmp}/f.xlsx", "must end in .nc or .csv"),
        ("forecast {naive} --plot {tmp}/f.gif", "must end in .png or .pdf or .svg"),
        ("forecast {naive} -o {tmp}/none/f.nc", "there is no folder"),
        ("forecast {naive} -o {tmp}/f.nc --guidance square", "{naive} has no option --guidance"),
        ("forecast {naive} -o {tmp}/f.nc --num-samples 0", "num_samples must be a whole number of"),
        ("sample {naive} -o {tmp}/s.nc", "a SeasonalNaive has no verb sample; it has forecast."),
        ("infer {naive} -o {tmp}/s.nc", "a SeasonalNaive has no verb infer; it has forecast."),
        ("evaluate {naive} --num-windows 9", "use num_windows=3"),
        ("evaluate {naive}", "{naive} needs --num-windows"),
        ("fit seasonal-naive {csv} {options} -o {naive}", "already holds a run; go on with it by --resume"),
    ],
)
def test_an_error_with_a_fitted_model_is_one_line(
    words: str, message: str, naive: Path, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"naive": naive, "tmp": tmp_path, "csv": csv, "options": " ".join([*COLUMNS, *NAIVE])}
    capsys.readouterr()
    before = sorted(os.listdir(tmp_path))

    status = cli.main(words.format(**places).split())

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seqdyn: error: ")]
    assert status == 2
    assert len(errors) == 1
    assert message.format(**places) in errors[0]
    assert sorted(os.listdir(tmp_path)) == before


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a model folder"):
        cli.main(["forecast", str(tmp_path), "-o", "f.nc", "--debug"])


def test_a_mistake_of_ours_shows_its_traceback(naive: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(seqdyn.models.SeasonalNaive, "forecast", broken)

    with pytest.raises(KeyError, match="a bug"):
        cli.main(["forecast", str(naive), "-o", str(tmp_path / "f.nc")])


class Network:
    device = "cpu"

    def to(self, device: str) -> None:
        self.device = device


@pytest.mark.parametrize(
    ("asked", "has_gpu", "device"),
    [
        ({}, True, "cuda"),
        ({}, False, "cpu"),
        ({"device": "cpu"}, True, "cpu"),
        ({"device": "cuda"}, True, "cuda"),
    ],
)
def test_a_network_computes_on_the_gpu_if_there_is_one(
    asked: dict[str, str], has_gpu: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    model = Network()

    place(model, asked)

    assert model.device == device


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(ValueError, match="torch finds no GPU here; leave it out, or use --device cpu"):
        place(Network(), {"device": "cuda"})


def test_the_device_is_an_option_of_all_that_computes(run: Run, naive: Path, tmp_path: Path) -> None:
    run("forecast", naive, "-o", tmp_path / "f.nc", "--num-samples", 1, "--device", "cpu")

    assert yaml.safe_load((tmp_path / "f.yaml").read_text())["device"] == "cpu"
    assert all("--device" in run(verb, naive, "--help") for verb in ("forecast", "evaluate"))


@pytest.mark.parametrize("module", ["seqdyn", "seqdyn.cli"])
def test_the_package_runs_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == f"seqdyn {seqdyn.__version__}\n"
