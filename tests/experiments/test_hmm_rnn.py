"""The emulation experiment runs from end to end."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.hmm_rnn import emulation, mechanism


def test_the_fast_version_trains_compares_and_stays_away_from_the_real_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "real.csv"
    command = ["emulation", "--fast", "--runs", str(tmp_path / "runs"), "--results", str(real)]
    monkeypatch.setattr("sys.argv", command)

    emulation.main()
    emulation.main()  # the finished row is skipped

    assert not real.exists()
    rows = pd.read_csv(tmp_path / "runs_fast" / "results.csv")
    assert rows[["model", "process", "seed"]].values.tolist() == [["preset", "three", 0]]
    assert rows["floor_ratio"].item() > 1
    assert "published_error" in capsys.readouterr().out


def test_every_row_of_the_configuration_has_a_published_figure() -> None:
    config = emulation.yaml.safe_load((emulation.HERE / "config.yaml").read_text())

    rows = emulation.rows(config)

    assert {row.process for row in rows} == config["published"].keys()
    assert len({(row.model, row.process, row.seed) for row in rows}) == len(rows)


def test_the_fast_version_takes_a_network_apart_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["--fast", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr("sys.argv", ["mechanism", *command])
    with pytest.raises(ValueError, match=r"emulation --only preset --process three --seed 0"):
        mechanism.main()
    monkeypatch.setattr("sys.argv", ["emulation", *command])
    emulation.main()
    monkeypatch.setattr("sys.argv", ["mechanism", *command])

    mechanism.main()
    mechanism.main()  # the finished row is skipped
    monkeypatch.setattr("sys.argv", ["mechanism", *command, "--training"])
    mechanism.main()

    runs = tmp_path / "runs_fast"
    rows = pd.read_csv(runs / "mechanism.csv")
    assert rows[["model", "seed"]].values.tolist() == [["preset", 0]]
    assert "|" in rows["triplets"].item()
    for folder, name in (("mechanism/preset-0", "orbit"), ("training", "training_dynamics")):
        assert (runs / folder / f"{name}.nc").exists() and (runs / folder / f"{name}.png").exists()
