"""Options made from signatures: spelling, types, files of settings, and what an error says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from seqdyn._options import Options, Shown, arguments, data_parameter, peek, required, with_overridden

if TYPE_CHECKING:
    import xarray as xr


def function(
    data: xr.Dataset,
    prediction_length: int,
    *,
    lags: Sequence[int] | str = (),
    preset: Literal["small"] | None = None,
    lower: float | None = None,
    columns: str | Sequence[str] | None = None,
    features: Sequence[str] = (),
    shuffle: bool = False,
    folder: str | os.PathLike[str] = "out",
    future: xr.DataArray | None = None,
    **others: Any,
) -> None:
    """Do something.

    Args:
        data: Not an option.
        prediction_length: Steps ahead, at most 80 % of the data.
        lags: Steps back.
        preset: A set of defaults.
        lower: Lowest value.
        columns: Names.
        features: Names again.
        shuffle: Whether to shuffle.
        folder: Where to write.
        future: What is known of the future.
    """


@pytest.fixture
def options() -> Options:
    options = Options("seqdyn do", ["source"], "Do something.")
    options.add("source", str, "a file")
    options.add("output", str, "a folder", aliases=("-o",))
    options.add_signature(function, skip=("data",))
    return options


REQUIRED = ["--prediction-length", "3"]


@pytest.mark.parametrize("spelling", [["--prediction-length", "24"], ["--prediction_length=24"]])
def test_hyphens_and_underscores_spell_the_same_option(options: Options, spelling: list[str]) -> None:
    assert options.parse(spelling) == {"prediction_length": 24}


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        ("--lags hourly", "lags", "hourly"),
        ("--lags 24,168", "lags", [24, 168]),
        ("--lags 24", "lags", [24]),
        ("--lags [24,168]", "lags", [24, 168]),
        ("--preset small", "preset", "small"),
        ("--lower 0", "lower", 0.0),
        ("--lower -1e3", "lower", -1000.0),
        ("--lower null", "lower", None),
        ("--lower None", "lower", None),
        ("--preset None", "preset", None),
        ("--columns y", "columns", "y"),
        ("--columns 24", "columns", "24"),
        ("--columns a,b", "columns", ["a", "b"]),
        ("--features a", "features", ["a"]),
        ("--shuffle", "shuffle", True),
        ("--shuffle false", "shuffle", False),
        ("-o run", "output", "run"),
        ("--folder a/b", "folder", "a/b"),
        ("--future rain.csv", "future", "rain.csv"),
    ],
)
def test_values_have_the_type_of_the_parameter(
    options: Options, typed: str, name: str, value: object
) -> None:
    given = options.parse([*REQUIRED, *typed.split()])

    assert given == {"prediction_length": 3, name: value}
    assert type(given[name]) is type(value)


def test_a_parameter_that_takes_data_is_a_file(options: Options) -> None:
    assert options.files == {"future"}


def test_an_option_without_value_before_another_one_does_not_swallow_it(options: Options) -> None:
    assert options.parse(["--shuffle", "my.csv", *REQUIRED])["source"] == "my.csv"
    with pytest.raises(ValueError, match="--lower needs a value: --lower VALUE"):
        options.parse(["--lower", "--shuffle", *REQUIRED])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "seqdyn do needs --prediction-length: Steps ahead, at most 80 % of the data."),
        ("--prediction-length many", "--prediction-length is many, but it must be int."),
        ("--prediction-length 1.5", "--prediction-length is 1.5, but it must be int."),
        ("--preset huge", "--preset is huge, but it must be 'small' or null."),
        ("--features 1,2", r"--features is 1, but it must be a list of str."),
        ("--lowr 1", "seqdyn do has no option --lowr; did you mean --lower?"),
        ("-x", "seqdyn do has no option -x; see seqdyn do --help."),
        ("a.csv b.csv", "unexpected 'b.csv': seqdyn do takes SOURCE and --NAME VALUE."),
        ("--config nowhere.yaml", "File does not exist"),
    ],
)
def test_an_error_names_the_option_and_the_remedy(options: Options, typed: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        options.parse(typed.split())
    assert "\n" not in str(error.value)


def test_what_was_given_can_be_written_as_yaml_and_read_back(options: Options, tmp_path: Path) -> None:
    given = options.parse(["my.csv", *REQUIRED, "--lags", "24,168", "--lower", "-1.5", "--columns", "1"])
    config = tmp_path / "settings.yaml"
    config.write_text(options.dump(given), encoding="utf-8")

    assert options.parse(["--config", str(config)]) == given
    assert peek(["--config", str(config)], "source") == peek([f"--config={config}"], "source") == "my.csv"


@pytest.mark.parametrize("order", [["{typed}", "{config}"], ["{config}", "{typed}"]])
def test_a_positional_argument_wins_over_the_configuration(
    options: Options, tmp_path: Path, order: list[str]
) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("source: old.csv\nprediction_length: 3\n", encoding="utf-8")
    words = [word.format(typed="new.csv", config=f"--config={config}") for word in order]

    assert options.parse(words) == {"source": "new.csv", "prediction_length": 3}


def test_an_unknown_name_in_the_configuration_is_named(options: Options, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("horizon: 3\n", encoding="utf-8")

    with pytest.raises(ValueError, match="the configuration names 'horizon': no option of seqdyn do"):
        options.parse(["--config", str(config)])


def test_print_config_prints_what_was_given_and_stops(
    options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Shown):
        options.parse(["my.csv", *REQUIRED, "--print_config"])

    assert capsys.readouterr().out == "source: my.csv\nprediction_length: 3\n"


def test_help_shows_the_docstring_and_the_defaults(
    options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Shown):
        options.parse(["--help"])

    shown = " ".join(capsys.readouterr().out.split())
    assert "usage: seqdyn do [SOURCE] [--OPTION VALUE ...]" in shown
    assert "--prediction-length Steps ahead, at most 80 % of the data. (int, required)" in shown
    assert "--output, -o a folder (str)" in shown
    assert "--shuffle Whether to shuffle. (bool, default False)" in shown
    assert "--folder Where to write. (str, default out)" in shown
    assert "--lags Steps back. (a list of int or str)" in shown


class Base:
    def fit(self, data: xr.Dataset, *, seed: int | None = None, **others: Any) -> None:
        """Fit.

        Args:
            data: Not an option.
            seed: Of all :class:`draws`.
        """

    def draw(self, num_samples: int, covariates: xr.DataArray | None = None) -> None:
        """Draw."""


class Special(Base):
    def fit(self, data: xr.Dataset, *, max_epochs: int = 3, **others: Any) -> None:
        """Fit; see :meth:`Base.fit`.

        Args:
            data: Not an option.
            max_epochs: Rounds.
        """


class Final(Special):
    def fit(self, data: xr.Dataset, *, rounds: int = 3) -> None:
        """Fit without more."""


def test_options_of_a_method_are_also_those_of_the_one_that_it_overrides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = Options("seqdyn do", [], "Do something.")
    for method in with_overridden(Special, "fit"):
        options.add_signature(method, skip=("data",))

    assert options.parse(["--max-epochs", "2", "--seed", "1"]) == {"max_epochs": 2, "seed": 1}
    assert with_overridden(Final, "fit") == [Final.fit]
    with pytest.raises(Shown):
        options.parse(["--help"])
    assert "Of all draws. (int)" in capsys.readouterr().out


def test_the_data_that_a_function_needs_are_told_from_those_it_may_take() -> None:
    assert data_parameter(function) == data_parameter(Special.fit) == "data"
    assert data_parameter(Base.draw) is None
    assert required(Base.draw) == ["num_samples"]


def test_only_what_can_be_typed_is_left_of_a_union() -> None:
    def takes(
        network: Base | str | None = None,
        times: Sequence[float] | Path | float = 0.0,
        anything: Any = None,
        base: Base | None = None,
    ) -> None:
        """Take."""

    options = Options("seqdyn do", [], "Do something.")
    options.add_signature(takes, skip=("base",), hints={"anything": bool, "network": int})

    typed = ["--network", "Linear", "--times", "1,2", "--anything", "true"]
    assert options.parse(typed) == {"network": "Linear", "times": [1.0, 2.0], "anything": True}
    assert options.parse(["--times", "1"]) == {"times": [1.0]}
    assert "--network               (str)" in options.help()


def test_arguments_picks_the_parameters_of_a_function() -> None:
    assert arguments(function, {"lags": 1, "others": 2, "seed": 3}) == {"lags": 1}
