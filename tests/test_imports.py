"""Imports point one way, and nothing heavy is loaded before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "seqdyn"

# From the bottom up: a part imports from its own layer and the ones before it.
LAYERS = [
    {"_arguments", "_files", "_info", "_lazy", "_logging", "dynamics", "errors", "persistence", "rng"},
    {"diffusion", "inference", "nn", "ot", "sde"},
    {"data", "datasets"},
    {"train"},
    {"models"},
    {"__main__", "cli", "demo"},  # and other private modules, which are theirs
]
# They stand beside the models, never on them.
BESIDE = {"analysis", "metrics", "plot"}


def module_name(path: Path) -> str:
    parts = ("seqdyn", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it, relative imports resolved."""
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # "from seqdyn import data" names a part, "from seqdyn import __version__" a value.
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "seqdyn" else {module}
    values = {"seqdyn.__version__"}
    return {name for name in names - values if name.split(".")[0] == "seqdyn" and "." in name}


def part(module: str) -> str:
    return module.split(".")[1]


def layer(name: str) -> int:
    """Number of the layer a part is in."""
    found = [number for number, names in enumerate(LAYERS) if name in names]
    assert found or name.startswith("_"), f"seqdyn.{name} is in no layer; add it to LAYERS in {__file__}"
    return found[0] if found else len(LAYERS) - 1


def may_import(importer: str, module: str) -> bool:
    """Whether a part may import a module."""
    name = part(module)
    if importer in BESIDE:
        return name == importer or name in LAYERS[0] | LAYERS[1] or module == "seqdyn.data.schema"
    if name in BESIDE:
        return layer(importer) == len(LAYERS) - 1
    return layer(name) <= layer(importer)


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    importer = part(module_name(path))

    assert [module for module in sorted(imported(path)) if not may_import(importer, module)] == []


@pytest.mark.parametrize(
    ("importer", "module", "permitted"),
    [
        ("train", "seqdyn.data.schema", True),
        ("data", "seqdyn.train.run", False),
        ("rng", "seqdyn.nn.s4", False),
        ("models", "seqdyn.metrics", False),
        ("metrics", "seqdyn.data.schema", True),
        ("metrics", "seqdyn.data.convert", False),
        ("plot", "seqdyn.metrics", False),
        ("_inputs", "seqdyn.plot", True),
        ("models", "seqdyn._inputs", False),
    ],
)
def test_the_rule_tells_up_from_down(importer: str, module: str, permitted: bool) -> None:
    assert may_import(importer, module) is permitted


def test_every_kind_of_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    path = tmp_path / "train" / "module.py"
    path.parent.mkdir()
    path.write_text(
        "import numpy, seqdyn\nimport seqdyn.models.base\nfrom seqdyn.cli import main\nfrom seqdyn import "
        "demo, __version__\nfrom . import run\nfrom ..data import windows\ndef f():\n    from seqdyn.rng "
        "import fork_rng\n"
    )

    assert imported(path) == {
        "seqdyn.models.base", "seqdyn.cli", "seqdyn.demo", "seqdyn.train", "seqdyn.data", "seqdyn.rng",
    }  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    ["import seqdyn", "import seqdyn.data, seqdyn.datasets, seqdyn.metrics, seqdyn.models, seqdyn.train"],
)
def test_importing_a_package_loads_neither_torch_nor_lightning(statement: str) -> None:
    heavy = ["torch", "pytorch_lightning", "pyro", "xarray", "matplotlib"]
    code = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"

    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert shown.stdout.strip() == "[]"
