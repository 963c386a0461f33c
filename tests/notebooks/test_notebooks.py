"""Notebooks are stored bare and valid, and run from beginning to end."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is missing; install the extra 'notebooks'")

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_is_a_notebook_on_forecasting() -> None:
    assert "forecasting" in [path.stem for path in NOTEBOOKS]


@every_notebook
def test_a_notebook_is_valid_and_stored_without_output(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)

    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert [cell.id for cell in code if cell.outputs] == []
    assert [cell.id for cell in code if cell.execution_count is not None] == []


@every_notebook
def test_a_notebook_defines_nothing_of_its_own(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)

    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for cell in notebook.cells:
        if cell.cell_type == "code":
            nodes = ast.walk(ast.parse(cell.source))
            assert not [node for node in nodes if isinstance(node, definitions)], cell.id


@pytest.mark.notebook
@every_notebook
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is missing; install the extra 'notebooks'")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )

    client.execute()  # raises on the first cell that fails

    assert list(tmp_path.iterdir()) == []  # what a notebook writes goes to a folder of its own
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
