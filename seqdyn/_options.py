"""Command-line options made from signatures: a new argument of a function needs no second declaration."""

from __future__ import annotations

import argparse
import difflib
import functools
import inspect
import operator
import os
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

__all__ = [
    "Options",
    "Shown",
    "arguments",
    "data_parameter",
    "peek",
    "read_settings",
    "required",
    "summary",
    "takes_more",
    "with_overridden",
]

Function = Callable[..., Any]

DATA = object()  # type of a parameter that takes a Dataset


class Shown(Exception):
    """What the user asked to see was printed; there is nothing more to do."""


class _Option(NamedTuple):
    hint: Any
    text: str
    default: Any
    required: bool
    aliases: tuple[str, ...]
    group: str


class Options:
    """The options of one command, from the shell or a YAML file.

    Only what the user gave is passed on: defaults stay with the functions, and a preset of a model can tell
    an explicit value from a default. ``--prediction-length`` and ``--prediction_length`` are the same option,
    ``--resume`` alone means true, and ``--lags 24,168`` is short for ``--lags '[24, 168]'``.

    Args:
        prog: The command as typed, for messages and help.
        positionals: Names of the options that may be given by position.
        description: What the command does.
        num_typed: How many of ``positionals`` are in ``prog`` already.
    """

    def __init__(
        self, prog: str, positionals: Sequence[str], description: str, *, num_typed: int = 0
    ) -> None:
        from jsonargparse import ArgumentParser

        self._prog = prog
        self._positionals = list(positionals)
        self._num_typed = num_typed
        self._description = description
        self._options: dict[str, _Option] = {}
        self._group = "options"
        self.files: set[str] = set()
        self._parser = ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False, print_config=None)
        self._parser.add_argument("--config", action="config")

    def group(self, title: str) -> None:
        """Show the options added from now on under ``title``."""
        self._group = title

    def add(
        self,
        name: str,
        hint: Any,
        text: str,
        *,
        default: Any = None,
        required: bool = False,
        aliases: Sequence[str] = (),
    ) -> None:
        """Add one option.

        Args:
            name: Its name as an argument, with underscores.
            hint: Type of its value.
            text: One or two sentences of help.
            default: What holds without it, shown in the help only.
            required: Whether it must be given.
            aliases: Other spellings, such as ``-o``.
        """
        self._options[name] = _Option(hint, text, default, required, tuple(aliases), self._group)
        self._parser.add_argument(f"--{_hyphens(name)}", type=hint)

    def add_signature(
        self,
        function: Function,
        *,
        skip: Collection[str] = (),
        optional: Collection[str] = (),
        hints: Mapping[str, Any] | None = None,
    ) -> None:
        """Add every named parameter of a function or class that is not there yet.

        A parameter that takes a Dataset becomes the path of a file, and its name is kept in :attr:`files`.

        Args:
            function: Function, method or class, with a Google-style docstring.
            skip: Parameters to leave out.
            optional: Parameters that need not be given although the function has no default for them.
            hints: Types of parameters that are annotated ``Any``.
        """
        found, texts, given = _hints(function), _texts(function), hints or {}
        for name, parameter in _parameters(function).items():
            if name in skip or name in self._options:
                continue
            hint = found.get(name, Any)
            if hint is Any:
                hint = given.get(name, Any)
            if hint is DATA:
                self.files.add(name)
                hint = str
            required = parameter.default is parameter.empty and name not in optional
            default = None if parameter.default is parameter.empty else parameter.default
            self.add(name, hint, texts.get(name, ""), default=default, required=required)

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """Read the options that were given.

        Returns:
            Name and value of each option on the command line or in a ``--config`` file, nothing else.

        Raises:
            ValueError: If an option is unknown, malformed or missing.
            Shown: After ``--help`` and ``--print-config``.
        """
        if "-h" in argv or "--help" in argv:
            sys.stdout.write(self.help())
            raise Shown
        show = any(token in ("--print-config", "--print_config") for token in argv)
        tokens = self._tokens([token for token in argv if token not in ("--print-config", "--print_config")])
        try:
            given = self._parser.parse_args(tokens, defaults=False)
        except argparse.ArgumentError as error:
            raise ValueError(self._plain(str(error))) from error
        values = given.as_dict()
        values.pop("config", None)
        if show:
            sys.stdout.write(self.dump(values) or "{}\n")
            raise Shown
        for name, option in self._options.items():
            if option.required and name not in values:
                raise ValueError(f"{self._prog} needs --{_hyphens(name)}: {option.text}")
        return values

    def help(self) -> str:
        """Everything there is to know about the command."""
        names = self._positionals[self._num_typed :]
        words = [name.upper() if self._options[name].required else f"[{name.upper()}]" for name in names]
        usage = " ".join(["usage:", self._prog, *words, "[--OPTION VALUE ...]"])
        lines = [usage, "", *textwrap.wrap(self._description, 100)]
        group = ""
        for name, option in self._options.items():
            if option.group != group:
                group = option.group
                lines += ["", f"{group}:"]
            lines += _help(name, option)
        lines += [
            "",
            "always:",
            "  --config                file with any of these options as YAML",
            "  --print-config          show the options as YAML and stop",
            "  --debug                 show the traceback of an error",
        ]
        return "\n".join([*lines, ""])

    def dump(self, values: dict[str, Any]) -> str:
        """Options as the YAML that ``--config`` reads."""
        import yaml

        known = {name: values[name] for name in self._options if name in values}
        return yaml.safe_dump(known, sort_keys=False, allow_unicode=True) if known else ""

    def _tokens(self, argv: Sequence[str]) -> list[str]:
        """Spell every option as ``--name=value``, positional ones last so that they win over a file."""
        tokens, positional, rest = [], [], list(argv)
        while rest:
            token = rest.pop(0)
            if not token.startswith("-") or token == "-":
                positional.append(token)
                continue
            option, equals, value = token.partition("=")
            name, root = self._name(option)
            if not equals:
                value = self._value(option, root, rest)
            tokens.append(f"--{name}={_as_yaml(value, self._hint(root))}")
        if len(positional) > len(self._positionals):
            expected = " ".join(name.upper() for name in self._positionals) or "no argument"
            raise ValueError(
                f"unexpected {positional[-1]!r}: {self._prog} takes {expected} and --NAME VALUE."
            )
        return tokens + [
            f"--{name}={value}" for name, value in zip(self._positionals, positional, strict=False)
        ]

    def _hint(self, name: str) -> Any:
        return self._options[name].hint if name in self._options else str

    def _name(self, option: str) -> tuple[str, str]:
        """Spelling for the parser, and the name of the parameter, of an option as typed."""
        for name, known in self._options.items():
            if option in known.aliases:
                return _hyphens(name), name
        head, dot, tail = option.removeprefix("--").partition(".")
        root = head.replace("-", "_")
        if not option.startswith("--") or root not in {*self._options, "config"}:
            close = difflib.get_close_matches(option, [f"--{_hyphens(name)}" for name in self._options], n=1)
            hint = f"did you mean {close[0]}?" if close else f"see {self._prog} --help."
            raise ValueError(f"{self._prog} has no option {option}; {hint}")
        return _hyphens(root) + dot + tail, root

    def _value(self, option: str, root: str, rest: list[str]) -> str:
        """Take the value that follows an option."""
        if self._hint(root) is bool and (not rest or rest[0].lower() not in ("true", "false")):
            return "true"
        if not rest or rest[0].startswith("--"):
            raise ValueError(f"{option} needs a value: {option} VALUE.")
        return rest.pop(0)

    def _plain(self, message: str) -> str:
        """Say in one line what jsonargparse found."""
        found = re.search(r'Parser key "(\w+)"', message)
        value = re.search(r"(?:Given|Got) value: (.*)", message)
        if found and value and found[1] in self._options:
            expected = _words(self._options[found[1]].hint)
            return f"--{_hyphens(found[1])} is {value[1].strip()}, but it must be {expected}."
        unknown = re.search(r"Option '([\w.]+)' is not accepted", message)
        if unknown:
            return (
                f"the configuration names {unknown[1]!r}: no option of {self._prog}; see {self._prog} --help."
            )
        return " ".join(message.split())


def _help(name: str, option: _Option) -> list[str]:
    """Lines of the help for one option."""
    notes = [_words(option.hint).removesuffix(" or null")]
    if option.required:
        notes.append("required")
    elif option.default is not None and option.default != ():
        notes.append(f"default {option.default}")
    label = ", ".join([f"--{_hyphens(name)}", *option.aliases])
    lines = textwrap.wrap(f"{option.text} ({', '.join(notes)})".strip(), 82, break_on_hyphens=False)
    first = [f"  {label}"] if len(label) > 22 else []
    margin = [" " * 26] * len(lines)
    if not first:
        margin[0] = f"  {label:24}"
    return first + [start + line for start, line in zip(margin, lines, strict=True)]


def arguments(function: Function, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that are parameters of ``function``."""
    return {name: values[name] for name in _parameters(function) if name in values}


def with_overridden(cls: type, name: str) -> list[Function]:
    """A method of a class and, while it takes further keyword arguments, the ones that it overrides."""
    found: list[Function] = []
    for base in cls.__mro__:
        if name in vars(base):
            found.append(vars(base)[name])
            if not takes_more(found[-1]):
                break
    return found


def takes_more(function: Function) -> bool:
    """Whether a function takes keyword arguments that it does not name."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def data_parameter(function: Function) -> str | None:
    """Name of the Dataset that a function needs, if it needs one."""
    hints = _hints(function)
    return next((name for name in required(function) if hints.get(name) is DATA), None)


def required(function: Function) -> list[str]:
    """Names of the parameters that have no default."""
    return [name for name, p in _parameters(function).items() if p.default is p.empty]


def peek(argv: Sequence[str], name: str) -> str | None:
    """The first positional argument, which decides on the options: from ``argv`` or its config file."""
    if argv and not argv[0].startswith("-"):
        return argv[0]
    for index, token in enumerate(argv):
        option, equals, path = token.partition("=")
        if option == "--config" and (equals or index + 1 < len(argv)):
            return read_settings(Path(path if equals else argv[index + 1])).get(name)
    return None


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of options.

    Raises:
        ValueError: If it is no YAML, or no mapping of names to values.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold options as NAME: VALUE, one a line.")
    return content


def summary(function: Function) -> str:
    """First paragraph of a docstring, on one line."""
    return _plain_text((inspect.getdoc(function) or "").partition("\n\n")[0])


def _parameters(function: Function) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind in kinds and name != "self"}


def _hints(function: Function) -> dict[str, Any]:
    """Types of the parameters; what takes a Dataset in Python takes a file on the command line."""
    target = inspect.unwrap(function.__init__ if inspect.isclass(function) else function)  # type: ignore[misc]
    names = vars(sys.modules[target.__module__])
    hints = {}
    for name, annotation in target.__annotations__.items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        # Read as text first: a module may import xarray for type checkers only.
        is_data = "xr.Data" in str(annotation)
        hints[name] = DATA if is_data else _typeable(typing.get_type_hints(one, names)[name])
    return hints


def _typeable(hint: Any) -> Any:
    """What of a type can be typed in a shell: of a union of objects and plain values the plain values."""
    members = _members(hint)
    plain = [m for m in members if not inspect.isclass(m) or m.__module__ == "builtins"]
    if len(plain) == len(members) or set(plain) <= {type(None)}:
        return hint
    return functools.reduce(operator.or_, plain)


def _texts(function: Function) -> dict[str, str]:
    """Help of the parameters, from the docstring."""
    import docstring_parser

    style = docstring_parser.DocstringStyle.GOOGLE
    doc = docstring_parser.parse(inspect.getdoc(function) or "", style)
    return {p.arg_name: _plain_text(p.description or "") for p in doc.params}


def _plain_text(text: str) -> str:
    """Text without markup, on one line."""
    return " ".join(re.sub(r":\w+:`~?", "", text).replace("`", "").split())


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


def _members(hint: Any) -> tuple[Any, ...]:
    """Members of a union, or the one type itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _as_yaml(value: str, hint: Any) -> str:
    """A value as typed in YAML: ``None`` is null, and ``24,168`` or ``24`` a list where one is meant."""
    members = _members(hint)
    if value == "None" and type(None) in members:
        return "null"
    sequences = [m for m in members if typing.get_origin(m) in (Sequence, list, tuple)]
    if not sequences or value.startswith("[") or value == "null":
        return value
    words = [word for m in members if typing.get_origin(m) is Literal for word in typing.get_args(m)]
    number = typing.get_args(sequences[0])[0] in (int, float) and re.fullmatch(r"-?\d+(\.\d*)?", value)
    listed = "," in value or number or (str not in members and value not in words)
    return f"[{value}]" if listed else value


def _words(hint: Any) -> str:
    """A type for a person: ``int``, ``'hourly' or 'daily'``, ``a list of int``."""
    words = []
    for member in _members(hint):
        origin, inner = typing.get_origin(member), typing.get_args(member)
        if origin is Literal:
            words += [repr(value) for value in inner]
        elif origin in (Sequence, list, tuple):
            words.append(f"a list of {_words(inner[0])}")
        elif origin is dict:
            words.append("a mapping")
        elif member is type(None):
            words.append("null")
        elif member is Any:
            words.append("any value")
        elif origin is not os.PathLike:  # on the command line a path is a str
            words.append(getattr(member, "__name__", str(member)))
    return " or ".join(words)
