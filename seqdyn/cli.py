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
    has_data,
    kind_of,
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
from seqdyn._options import (
    Options,
    Shown,
    arguments,
    data_parameter,
    peek,
    required,
    summary,
    takes_more,
    with_overridden,
)
from seqdyn._outputs import (
    PICTURES,
    TABLES,
    check_file,
    check_run,
    draw,
    in_local_time,
    run_folder,
    save,
)
from seqdyn.errors import EarlyEndWarning, NonFiniteError, NotFittedError

if TYPE_CHECKING:
    import pandas as pd
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
    kind, reading = kind_of(cls), values
    if "data" in values:
        data = read_data(values["data"], values, kind)
        model = cls(**{**arguments(cls, known_sizes(data)), **arguments(cls, values)})
        training = without_last(split_future(data)[0], values.get("holdout", 0))
        reading = values | known_symbols(data)
    elif "process" in values:
        model = cls.preset(values["process"], **{**arguments(cls, values), "process": values["process"]})
    else:
        raise ValueError(f"seqdyn fit {name} needs --data, a file, or --process, what it is to emulate.")

    read = partial(read_data, values=reading, kind=kind)
    passed = _passed(with_overridden(cls, "fit"), {**values, "run_dir": run}, options, read)
    passed |= values.get("trainer_options", {})
    with run_folder(run, data, options.dump({k: v for k, v in values.items() if k != "resume"})):
        model.fit(training, **passed)
        if "run_dir" not in passed:
            model.save(run / "model")
    _say(f"{cls.__name__} is in {run}. Next: {_next(cls, run)}")


def _next(cls: Any, run: Path) -> str:
    """A command that shows what a model has learnt: the first one that needs no further option."""
    for verb, noun in DRAWN.items():
        function = getattr(cls, verb, None)
        if function and set(required(function)) <= {data_parameter(function)}:
            return f"seqdyn {verb} {run} -o {noun}.nc --plot {noun}.png"
    return f"seqdyn sample {run} --num-samples 100 -o sample.nc"


def _draw(verb: str, argv: Sequence[str]) -> None:
    """A verb that returns draws: of the data of the run, or other data, or of the fitted model alone."""
    options, model = _run_options(verb, argv, f"{COMMANDS[verb][1].capitalize()}.")
    noun = DRAWN[verb]
    function: Any = getattr(model, verb, None)
    taken_from = data_parameter(function) if function else None
    options.add("output", str, "file for the draws, .nc or .csv", aliases=("-o",))
    options.add("plot", str, "file for a picture, .png, .pdf or .svg")
    if taken_from:
        options.add("data", str, f"{verb} from this file instead of the data of the run")
    _add_verb(options, model, verb)
    if taken_from:
        _add_reading(options, kind_of(model))
    values = options.parse(argv)
    output, plot = _path(values, "output", TABLES), _path(values, "plot", PICTURES)
    if output is None and plot is None:
        raise ValueError(f"the {noun} would be lost; give a file: -o {noun}.nc or --plot {noun}.png.")

    place(model, values)
    kind = kind_of(model)
    reading = reading_options(values, kind, taken=arguments(function, values))
    passed = _passed([function], values, options, partial(read_data, values=reading, kind=kind))
    data = None
    if taken_from or (plot and has_data(values)):
        data, covariates = split_future(run_data(values, reading, kind))
        known: dict[str, Any] = {} if covariates is None else {"future_covariates": covariates}
        known |= {taken_from: data} if taken_from else {}
        passed = arguments(function, known) | passed
    result = function(**passed)
    if output is not None:
        save(result, output, options.dump(values))
    if plot is not None:
        draw(verb, result, data, plot)
    _say(_sizes_of(result, noun), *_extrapolated(result), *_written(output, plot))


def _sample(argv: Sequence[str]) -> None:
    options, model = _run_options("sample", argv, "Draw new sequences from a fitted model.")
    options.add("output", str, "file for the draws, .nc or .csv", required=True, aliases=("-o",))
    _add_verb(options, model, "sample")
    values = options.parse(argv)
    output = Path(values["output"])
    check_file(output, TABLES)

    place(model, values)
    read = partial(read_data, values={}, kind="sequences")  # of covariates
    passed = _passed([model.sample], values, options, read)
    if "covariates" in passed:
        passed["covariates"] = passed["covariates"].isel(series=0)  # one window for all draws
    draws = model.sample(**passed)
    save(draws, output, options.dump(values))
    _say(_sizes_of(draws, "drawn"), *_written(output))


def _evaluate(argv: Sequence[str]) -> None:
    from seqdyn.metrics import evaluate

    options, model = _run_options("evaluate", argv, summary(evaluate))
    options.add("data", str, "evaluate on this file instead of the data of the run")
    options.add("output", str, "file for the scores one by one, .nc or .csv", aliases=("-o",))
    options.add("plot", str, "file for a picture, .png, .pdf or .svg")
    verb, own = ("leave_one_out", []) if hasattr(model, "leave_one_out") else ("forecast", [evaluate])
    if own:
        options.group("evaluation")
        options.add("num_windows", int, "number of windows", required=True)
        options.add_signature(evaluate, skip=("model", "data"))
    _add_verb(options, model, verb)
    _add_reading(options, kind_of(model))
    values = options.parse(argv)
    output, plot = _path(values, "output", TABLES), _path(values, "plot", PICTURES)

    place(model, values)
    kind = kind_of(model)
    reading = reading_options(values, kind)
    data, _ = split_future(run_data(values, reading, kind))
    read = partial(read_data, values=reading, kind=kind)
    scores = evaluate(model, data, **_passed([getattr(model, verb), *own], values, options, read))
    if output is not None:
        save(scores if output.suffix == ".nc" else _one_by_one(scores), output, options.dump(values))
    if plot is not None:
        draw("evaluate", scores, data, plot)
    _say(*_score_table(scores), *_written(output, plot))


def _one_by_one(scores: xr.Dataset) -> pd.DataFrame:
    """Scores of each snapshot; of each series and window, without the sums that they are formed from."""
    from seqdyn.metrics import pool

    if "score" in scores:
        return scores.to_dataframe()
    return in_local_time(pool(scores, []).drop_dims("level").to_dataframe(), scores["start"])


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

# Verbs that return draws, and what they are called.
DRAWN = {"forecast": "forecast", "infer": "paths", "marginal": "population"}

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "demo": (_demo, "fit, forecast and compare on the data in the package"),
    "fit": (_fit, "fit a model to a file or a data set"),
    "forecast": (partial(_draw, "forecast"), "forecast with a fitted model"),
    "infer": (partial(_draw, "infer"), "draw what happened between observations"),
    "marginal": (partial(_draw, "marginal"), "draw the population at any time between snapshots"),
    "sample": (_sample, "draw new sequences from a fitted model"),
    "evaluate": (_evaluate, "score a fitted model on rolling windows, or on snapshots left out"),
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
    held = "steps at the end of sequences that are not trained on, for seqdyn evaluate"
    options.add("holdout", int, held, default=0)
    _add_reading(options, kind_of(cls))
    options.group(cls.__name__)
    options.add_signature(cls, optional=("num_features", "num_series", "num_symbols"))
    options.group("training")
    fit = with_overridden(cls, "fit")
    for function in fit:
        options.add_signature(function, skip=("data", "run_dir"))
    if takes_more(fit[-1]):
        options.add(
            "trainer_options", dict[str, Any], "more options of the trainer, such as '{accelerator: cpu}'"
        )
    return options


def _add_reading(options: Options, kind: str) -> None:
    options.group("reading the data")
    columns = dict.fromkeys(("time", "series", "value"), str | Sequence[str] | None)
    options.add_signature(reader_of(kind), skip=("source",), hints=columns)
    options.add("read_options", dict[str, Any], "more options of the reader, such as '{sep: \";\"}' for CSV")


def _run_options(verb: str, argv: Sequence[str], text: str) -> tuple[Options, Any]:
    """Options of a command on a fitted model, and the model; ``None`` if only the general help is wanted."""
    import seqdyn

    run = peek(argv, "run")
    if run is None and not {"-h", "--help"} & set(argv):
        raise ValueError(f"name the folder of a run or model: seqdyn {verb} RUN.")
    model = None if run is None else seqdyn.load(run)
    if model is None:
        text = f"{text} Further options are those of the model: seqdyn {verb} RUN --help."
    elif hasattr(model, verb):
        text = summary(getattr(model, verb))
    prog = f"seqdyn {verb}" + (f" {run}" if run else "")
    options = Options(prog, ["run"], text, num_typed=int(run is not None))
    options.add("run", str, "folder that seqdyn fit wrote, or a saved model", required=True)
    options.add(
        "device", _Device, "where a network computes; auto takes the GPU if there is one", default="auto"
    )
    return options, model


def _add_verb(options: Options, model: Any, verb: str) -> None:
    """Add the options of a verb of the model, if there is one."""
    if model is None:
        return
    if not hasattr(model, verb):
        can = ", ".join(name for name in (*DRAWN, "sample") if hasattr(model, name))
        raise ValueError(f"a {type(model).__name__} has no verb {verb}; it has {can}.")
    function = getattr(model, verb)
    options.group(type(model).__name__)
    options.add_signature(function, skip=(data_parameter(function) or "",))


def _passed(
    functions: Sequence[Callable[..., Any]],
    values: Mapping[str, Any],
    options: Options,
    read: Callable[[str], xr.Dataset],
) -> dict[str, Any]:
    """Arguments of some functions, with files read; of a file for covariates only those are passed."""
    from seqdyn.data.schema import COVARIATES

    given = {name: value for name, value in values.items() if name != "data"}
    passed = {name: value for function in functions for name, value in arguments(function, given).items()}
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


def _extrapolated(result: xr.Dataset) -> list[str]:
    """From when on paths are extrapolated, if any are."""
    from seqdyn.data.names import EXTRAPOLATION

    ends = result.get(EXTRAPOLATION, result.attrs.get(EXTRAPOLATION))
    if ends is None:
        return []
    times = sorted({float(end) for end in getattr(ends, "values", [ends])})
    beyond = f"{times[0]:g}" if len(times) == 1 else f"{times[0]:g} to {times[-1]:g}, by condition"
    return [f"extrapolated after {beyond}"] if float(result["time"].max()) > times[0] else []


def _sizes_of(data: xr.Dataset, what: str) -> str:
    from seqdyn.data.schema import SYMBOL, TARGET

    drawn = next(data[name] for name in (TARGET, SYMBOL, *data.data_vars) if name in data)
    return f"{what}: " + " × ".join(f"{size} {dim}" for dim, size in drawn.sizes.items())


def _score_table(scores: xr.Dataset) -> list[str]:
    """Pooled scores, one a line; of snapshots left out their mean, by method and metric."""
    if "score" in scores:
        others = [dim for dim in scores["score"].dims if dim not in ("method", "metric")]
        table = scores["score"].mean(others).to_pandas().rename_axis(index=None, columns=None)
        about = ", ".join(f"{name} {value}" for name, value in scores.attrs.items())
        over = " and ".join(f"{scores.sizes[dim]} {dim}s" for dim in others)
        return [f"{about}, mean over {over}", *table.to_string(float_format="{:.4g}".format).splitlines()]
    rows = {name: value for name, value in scores.attrs.items() if isinstance(value, float)}
    width = max(map(len, rows))
    about = ", ".join(f"{name} {value}" for name, value in scores.attrs.items() if name not in rows)
    return [about, *(f"{name:{width}}  {value:.4g}" for name, value in rows.items())]


if __name__ == "__main__":
    raise SystemExit(main())
