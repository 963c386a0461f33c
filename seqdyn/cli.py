"""The command ``seqdyn``: the package's verbs from the shell, and nothing more.

Options come from the signatures of the functions they are for: a new model or argument needs no change here.
Heavy modules are imported by the command that needs them; ``seqdyn --help`` imports none.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seqdyn import __version__
from seqdyn._inputs import (
    check_trainer_options,
    command_name,
    known_sizes,
    known_symbols,
    model_class,
    model_names,
    place,
    read_data,
    reader_of,
    reading_options,
    run_data,
    split_future,
    without_last,
)
from seqdyn._options import Options, Shown, arguments, peek, summary
from seqdyn._outputs import (
    PICTURES,
    TABLES,
    check_file,
    check_run,
    draw_forecast,
    in_local_time,
    run_folder,
    save,
)
from seqdyn.errors import EarlyEndWarning, NonFiniteError, NotFittedError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["main"]

_Device = Literal["auto", "cpu", "cuda"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; ``None`` means those of the process.

    Returns:
        Exit status: 0, or 2 after an error, which is one line on standard error. A mistake of the package
        itself shows its traceback.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [token for token in argv if token != "--debug"]
    if not argv or argv[0] not in COMMANDS:
        return _top(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            COMMANDS[argv[0]][0](argv[1:])
        except Shown:
            return 0
        except KeyboardInterrupt:
            return _complain("interrupted; a fit goes on by the same command with --resume.", 130)
        except BrokenPipeError:  # the reader of our output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except _REFUSALS as error:
            if debug:
                raise
            return _complain(f"error: {error}")
    return 0


# What the library raises when a request cannot be met; anything else is our own mistake and shows itself.
_REFUSALS = (ImportError, NonFiniteError, NotFittedError, OSError, ValueError)


def _top(argv: Sequence[str]) -> int:
    if argv and argv[0] == "--version":
        _say(f"seqdyn {__version__}")
    elif not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        _say(
            "usage: seqdyn COMMAND ...",
            "",
            "Learned dynamics of sequences: forecasting, generation and analysis with uncertainty.",
            "",
            *(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()),
            "",
            "seqdyn COMMAND --help explains a command; --debug shows the traceback of an error.",
        )
    else:
        return _complain(f"error: there is no command {argv[0]!r}; commands are {', '.join(COMMANDS)}.")
    return 0


def _complain(message: str, status: int = 2) -> int:
    sys.stderr.write(f"seqdyn: {' '.join(message.split())}\n")
    return status


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    text = str(message)
    if issubclass(category, EarlyEndWarning):  # its remedy is a line of Python
        fact = text.partition(" If that is no gap")[0]
        text = f"{fact} If that is no gap, forecast from a file that stops there: --data FILE."
    _complain(f"warning: {text}")


# Commands --------------------------------------------------------------------------------------------------


def _demo(argv: Sequence[str]) -> None:
    from seqdyn import demo

    options = Options("seqdyn demo", [], summary(demo.main))
    options.add_signature(demo.main)
    demo.main(**options.parse(argv))


def _fit(argv: Sequence[str]) -> None:
    name = peek(argv, "model")
    if name is None:
        return _list_models(argv)
    cls = model_class(name)
    options = _fit_options(cls)
    values = options.parse(argv)
    run, resume = Path(values["output"]), values.get("resume", False)
    check_run(run, resume)
    check_trainer_options(values.get("trainer_options", {}))
    data = training = None
    reader, reading = reader_of(cls), values
    if "data" in values:
        data = read_data(values["data"], values, reader)
        model = cls(**{**arguments(cls, known_sizes(data)), **arguments(cls, values)})
        training = without_last(split_future(data)[0], values.get("holdout", 0))
        reading = values | known_symbols(data)
    elif "process" in values:
        model = cls.preset(values["process"], **{**arguments(cls, values), "process": values["process"]})
    else:
        raise ValueError(f"seqdyn fit {name} needs --data, a file, or --process, what it is to emulate.")

    read = partial(read_data, values=reading, reader=reader)
    passed = _passed(cls.fit, {**values, "run_dir": run}, options, read) | values.get("trainer_options", {})
    with run_folder(run, data, options.dump({k: v for k, v in values.items() if k != "resume"})):
        model.fit(training, **passed)
        if "run_dir" not in passed:
            model.save(run / "model")
    verb = "forecast" if hasattr(cls, "forecast") else "sample"
    how = "-o forecast.nc --plot forecast.png" if verb == "forecast" else "--num-samples 100 -o sample.nc"
    _say(f"{cls.__name__} is in {run}. Next: seqdyn {verb} {run} {how}")


def _forecast(argv: Sequence[str]) -> None:
    options, model = _run_options("forecast", argv, "Forecast from the end of the data.")
    options.add("data", str, "go on from the end of this file instead of the data of the run")
    options.add("output", str, "file for the draws, .nc or .csv", aliases=("-o",))
    options.add("plot", str, "file for a picture, .png, .pdf or .svg")
    _add_verb(options, model, "forecast")
    _add_reading(options)
    values = options.parse(argv)
    output, plot = _path(values, "output", TABLES), _path(values, "plot", PICTURES)
    if output is None and plot is None:
        raise ValueError("the forecast would be lost; give it a file: -o forecast.nc or --plot forecast.png.")

    place(model, values)
    reading = reading_options(values)
    context, covariates = split_future(run_data(values, reading))
    known = {} if covariates is None else arguments(model.forecast, {"future_covariates": covariates})
    read = partial(read_data, values=reading)
    forecast = model.forecast(context, **known | _passed(model.forecast, values, options, read))
    if output is not None:
        save(forecast, output, options.dump(values))
    if plot is not None:
        draw_forecast(forecast, context, plot)
    _say(_sizes_of(forecast, "forecast"), *_written(output, plot))


def _sample(argv: Sequence[str]) -> None:
    options, model = _run_options("sample", argv, "Draw new sequences from a fitted model.")
    options.add("output", str, "file for the draws, .nc or .csv", required=True, aliases=("-o",))
    _add_verb(options, model, "sample")
    values = options.parse(argv)
    output = Path(values["output"])
    check_file(output, TABLES)

    place(model, values)
    passed = _passed(model.sample, values, options, partial(read_data, values={}))
    if "covariates" in passed:
        passed["covariates"] = passed["covariates"].isel(series=0)  # one window for all draws
    draws = model.sample(**passed)
    save(draws, output, options.dump(values))
    _say(_sizes_of(draws, "drawn"), *_written(output))


def _evaluate(argv: Sequence[str]) -> None:
    from seqdyn.metrics import evaluate, pool

    options, model = _run_options("evaluate", argv, summary(evaluate))
    options.add("data", str, "score on this file instead of the data of the run")
    options.add("output", str, "file for the scores of each series and window, .nc or .csv", aliases=("-o",))
    options.group("evaluation")
    options.add_signature(evaluate, skip=("model", "data"))
    _add_verb(options, model, "forecast")
    _add_reading(options)
    values = options.parse(argv)
    output = _path(values, "output", TABLES)

    place(model, values)
    reading = reading_options(values)
    data, _ = split_future(run_data(values, reading))
    read = partial(read_data, values=reading)
    passed = _passed(model.forecast, values, options, read) | _passed(evaluate, values, options, read)
    scores = evaluate(model, data, **passed)
    if output is not None:
        # A table holds the scores of each series and window, netCDF also the sums that they are formed from.
        table = in_local_time(pool(scores, []).drop_dims("level").to_dataframe(), scores["start"])
        save(scores if output.suffix == ".nc" else table, output, options.dump(values))
    _say(*_score_table(scores), *_written(output))


def _datasets(argv: Sequence[str]) -> None:
    from seqdyn import datasets

    options = Options(
        "seqdyn datasets", ["name"], "List the data sets, describe one, or write one to a file."
    )
    options.add("name", str, "the data set; without it all are listed")
    options.add("output", str, "file to write it to, .nc or .csv", aliases=("-o",))
    values = options.parse(argv)
    output = _path(values, "output", TABLES)
    if "name" not in values:
        names = datasets.names()
        width = max(map(len, names))
        return _say(*(f"{name:{width}}  {datasets.info(name).title}" for name in names))
    card = datasets.info(values["name"])
    if output is not None:
        save(datasets.load(card.name), output)
    facts = {name: getattr(card, name) for name in _CARD} | {"files": ", ".join(f.path for f in card.files)}
    _say(
        *(f"{name:18} {value}" for name, value in facts.items() if value not in (None, "")), *_written(output)
    )


_CARD = ("title", "kind", "freq", "units", "prediction_length", "licence", "source", "citation", "notes")

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "demo": (_demo, "fit, forecast and compare on the data in the package"),
    "fit": (_fit, "fit a model to a file or a data set"),
    "forecast": (_forecast, "forecast with a fitted model"),
    "sample": (_sample, "draw new sequences from a fitted model"),
    "evaluate": (_evaluate, "score a fitted model on rolling windows"),
    "datasets": (_datasets, "list, describe and export the data sets"),
}


# Options and arguments -------------------------------------------------------------------------------------


def _list_models(argv: Sequence[str]) -> None:
    names = ", ".join(model_names())
    if not {"-h", "--help"} & set(argv):
        raise ValueError(f"name a model and a file: seqdyn fit MODEL DATA -o RUN; models are {names}.")
    _say(
        "usage: seqdyn fit MODEL DATA -o RUN [--OPTION VALUE ...]",
        f"models: {names}",
        "seqdyn fit MODEL --help lists the options of a model.",
    )


def _fit_options(cls: Any) -> Options:
    prog = f"seqdyn fit {command_name(cls.__name__)}"
    options = Options(prog, ["model", "data"], summary(cls), num_typed=1)
    options.add("model", str, "name of the model")
    needed = "process" not in inspect.signature(cls).parameters
    options.add("data", str, "file, or name of a data set (seqdyn datasets lists them)", required=needed)
    options.add("output", str, "folder of the run", required=True, aliases=("-o", "--run"))
    options.add("holdout", int, "steps at the end that are not trained on, for seqdyn evaluate", default=0)
    _add_reading(options, reader_of(cls))
    options.group(cls.__name__)
    options.add_signature(cls, optional=("num_features", "num_series", "num_symbols"))
    options.group("training")
    options.add_signature(cls.fit, skip=("data", "run_dir"))
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls.fit).parameters.values()):
        options.add(
            "trainer_options", dict[str, Any], "more options of the trainer, such as '{accelerator: cpu}'"
        )
    return options


def _add_reading(options: Options, reader: Callable[..., Any] | None = None) -> None:
    from seqdyn.data import read_sequences

    options.group("reading the data")
    columns = dict.fromkeys(("time", "series", "value"), str | Sequence[str] | None)
    options.add_signature(reader or read_sequences, skip=("source",), hints=columns)
    options.add("read_options", dict[str, Any], "more options of the reader, such as '{sep: \";\"}' for CSV")


def _run_options(verb: str, argv: Sequence[str], text: str) -> tuple[Options, Any]:
    """Options of a command on a fitted model, and the model; ``None`` if only the general help is wanted."""
    import seqdyn

    run = peek(argv, "run")
    if run is None and not {"-h", "--help"} & set(argv):
        raise ValueError(f"name the folder of a run or model: seqdyn {verb} RUN.")
    prog = f"seqdyn {verb}" + (f" {run}" if run else "")
    options = Options(prog, ["run"], text, num_typed=int(run is not None))
    options.add("run", str, "folder that seqdyn fit wrote, or a saved model", required=True)
    options.add(
        "device", _Device, "where a network computes; auto takes the GPU if there is one", default="auto"
    )
    return options, None if run is None else seqdyn.load(run)


def _add_verb(options: Options, model: Any, verb: str) -> None:
    """Add the options of a verb of the model."""
    if model is None:
        options.group(f"and the options of the model: seqdyn {verb} RUN --help")
    elif not hasattr(model, verb):
        raise ValueError(f"a {type(model).__name__} cannot {verb}.")
    else:
        options.group(type(model).__name__)
        options.add_signature(getattr(model, verb), skip=("context",))


def _passed(
    function: Callable[..., Any],
    values: Mapping[str, Any],
    options: Options,
    read: Callable[[str], xr.Dataset],
) -> dict[str, Any]:
    """Arguments for ``function``, with files read; of a file for covariates only those are passed."""
    from seqdyn.data.schema import COVARIATES

    passed = arguments(function, {name: value for name, value in values.items() if name != "data"})
    for name in options.files & passed.keys():
        data = read(passed[name])
        passed[name] = data[COVARIATES] if name.endswith(COVARIATES) else data
    return passed


# What the user sees ----------------------------------------------------------------------------------------


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _path(values: Mapping[str, Any], name: str, kinds: Sequence[str]) -> Path | None:
    path = Path(values[name]) if name in values else None
    check_file(path, kinds)
    return path


def _written(*paths: Path | None) -> list[str]:
    return [f"written: {path}" for path in paths if path is not None]


def _sizes_of(data: xr.Dataset, what: str) -> str:
    from seqdyn.data.schema import SYMBOL, TARGET

    drawn = next(data[name] for name in (TARGET, SYMBOL, *data.data_vars) if name in data)
    return f"{what}: " + " × ".join(f"{size} {dim}" for dim, size in drawn.sizes.items())


def _score_table(scores: xr.Dataset) -> list[str]:
    """Pooled scores, one a line."""
    rows = {name: value for name, value in scores.attrs.items() if isinstance(value, float)}
    width = max(map(len, rows))
    about = ", ".join(f"{name} {value}" for name, value in scores.attrs.items() if name not in rows)
    return [about, *(f"{name:{width}}  {value:.4g}" for name, value in rows.items())]


if __name__ == "__main__":
    raise SystemExit(main())
