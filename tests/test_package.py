"""The package as a whole: what importing it costs, what it says, what an installation holds."""

from __future__ import annotations

import logging
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import seqdyn

ROOT = Path(__file__).parents[1]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )


def test_import_loads_the_standard_library_only() -> None:
    code = "import sys; before = set(sys.modules); import seqdyn; print(*sorted(set(sys.modules) - before))"

    loaded = run_python(code).stdout.split()

    packages = {name.partition(".")[0] for name in loaded}
    assert "seqdyn" in packages
    assert packages - {"seqdyn"} <= sys.stdlib_module_names


def test_names_at_the_top_load_on_first_use() -> None:
    code = "import sys, seqdyn; assert 'seqdyn.errors' not in sys.modules; print(seqdyn.errors.__name__)"

    assert run_python(code).stdout.strip() == "seqdyn.errors"


@pytest.mark.parametrize("name", seqdyn.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(seqdyn, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'seqdyn' has no attribute 'nothing'"):
        seqdyn.nothing  # noqa: B018


SAY = """
import logging, seqdyn
{setup}
logging.getLogger("seqdyn").info("fitted")
logging.getLogger("seqdyn").debug("not this")
"""


def test_messages_reach_standard_error_when_nobody_configured_logging() -> None:
    assert run_python(SAY.format(setup="pass")).stderr == "fitted\n"


@pytest.mark.parametrize(
    "setup",
    [
        "logging.basicConfig(format='app: %(message)s', level='INFO')",
        "h = logging.StreamHandler(); h.setFormatter(logging.Formatter('app: %(message)s'));"
        " logging.getLogger('seqdyn').addHandler(h)",
    ],
    ids=["root", "own"],
)
def test_messages_appear_once_when_the_application_configures_logging_later(setup: str) -> None:
    assert run_python(SAY.format(setup=setup)).stderr == "app: fitted\n"


def test_an_application_that_configured_logging_first_keeps_its_level() -> None:
    code = "import logging; logging.basicConfig(level='WARNING')" + SAY.format(setup="pass")

    assert run_python(code).stderr == ""


def test_messages_can_be_captured(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="seqdyn"):
        logging.getLogger("seqdyn").info("fitted")

    assert caplog.messages == ["fitted"]


def test_a_wheel_holds_the_code_the_typing_marker_and_the_embedded_data(tmp_path: Path) -> None:
    # The build runs in a copy: setuptools writes into the folder that it builds from.
    source = tmp_path / "source"
    code = f"""
import os, shutil, setuptools.build_meta as backend
from pathlib import Path
root, source = Path({str(ROOT)!r}), Path({str(source)!r})
shutil.copytree(root / "seqdyn", source / "seqdyn", ignore=shutil.ignore_patterns("__pycache__"))
shutil.copytree(root / "tests", source / "tests", ignore=shutil.ignore_patterns("__pycache__"))
for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(root / name, source)
os.chdir(source)
backend.build_wheel({str(tmp_path)!r})
"""
    run_python(code)

    (wheel,) = tmp_path.glob("seqdyn-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    expected = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("**/*.py", "py.typed", "datasets/embedded/*")
        for path in (ROOT / "seqdyn").glob(pattern)
        if path.is_file()
    }
    assert wheel.name == f"seqdyn-{seqdyn.__version__}-py3-none-any.whl"
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.startswith("seqdyn/datasets/embedded/") for name in names)


def test_the_development_extra_contains_every_optional_reader() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = {name: set(text.split()) for name, text in config["options.extras_require"].items()}

    for reader in ("parquet", "polars", "anndata", "zarr"):
        assert extras[reader] <= extras["dev"], reader


def test_versions_agree() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert f"\nversion: {seqdyn.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    floor = config["options"]["python_requires"].removeprefix(">=")
    assert pyproject["tool"]["mypy"]["python_version"] == floor
    assert pyproject["tool"]["ruff"]["target-version"] == "py" + floor.replace(".", "")
