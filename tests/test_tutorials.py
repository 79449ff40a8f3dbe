"""Tutorials run from start to end, and their notebooks are those of their scripts."""

import re
import shutil
from pathlib import Path

import keras
import pytest

TUTORIALS = Path(__file__).parent.parent / "tutorials"
SCRIPTS = sorted(TUTORIALS.glob("*.py"))

pytestmark = pytest.mark.tensorflow
each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def read(path):
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(path, as_version=4)


def test_nothing_else_is_there():
    """Every notebook is one of a script, and every script is a tutorial."""
    assert SCRIPTS
    assert all(re.fullmatch(r"\d\d_\w+", script.stem) for script in SCRIPTS)
    notebooks = [script.with_suffix(".ipynb") for script in SCRIPTS]
    assert sorted(TUTORIALS.glob("*.ipynb")) == notebooks


@each
def test_the_readme_lists_it(script):
    readme = (TUTORIALS.parent / "README.md").read_text()
    title = re.search(r"^# # (.*)$", script.read_text(), flags=re.MULTILINE)[1]
    number = int(script.stem[:2])
    assert f"[{number}. {title}](tutorials/{script.stem}.ipynb)" in readme


@each
def test_links_to_other_tutorials_lead_somewhere(script):
    for target in re.findall(r"\]\(([\w/.]+\.ipynb)\)", script.read_text()):
        assert (TUTORIALS / target).exists(), target


@each
def test_notebook_is_made_from_script(script, tmp_path):
    """``make notebooks`` would not change a byte."""
    cli = pytest.importorskip("jupytext.cli")
    notebook = script.with_suffix(".ipynb")
    copies = [shutil.copy(path, tmp_path) for path in (script, notebook)]
    cli.jupytext(["--quiet", "--update", "--to", "ipynb", copies[0]])
    assert Path(copies[1]).read_text() == notebook.read_text(), "run `make notebooks`"


@each
def test_notebook_is_committed_without_outputs(script):
    cells = read(script.with_suffix(".ipynb")).cells
    assert len({cell.id for cell in cells}) == len(cells)
    for cell in cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@each
def test_badge_opens_this_notebook(script):
    name = script.with_suffix(".ipynb").name
    badge = "https://colab.research.google.com/github/keras-l0/keras-l0/blob/main"
    assert f"{badge}/tutorials/{name}" in script.read_text()


@each
def test_notebook_runs(script, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("KERAS_L0_TUTORIAL_SMALL", "1")
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.setenv("PYTHONPATH", str(TUTORIALS.parent), prepend=":")
    nbclient.NotebookClient(
        read(script.with_suffix(".ipynb")),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
