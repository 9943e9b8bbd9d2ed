"""The notebook is its script, and runs from top to bottom."""

import contextlib
import pathlib
import shutil

from helpers import shrunk
import jupytext
import nbclient
import pytest

COLAB = pathlib.Path(__file__).parents[2] / "colab"


def read(suffix):
    return jupytext.read(COLAB / f"deeprank_demo{suffix}")


def test_the_notebook_is_its_script():
    cells = [
        [
            (cell.cell_type, cell.source, cell.metadata.get("tags"))
            for cell in book.cells
        ]
        for book in (read(".ipynb"), read(".py"))
    ]
    assert cells[0] == cells[1]
    assert not any(cell.get("outputs") for cell in read(".ipynb").cells)


def find_package(folder, repository=""):
    """Returns what the notebook installs in a folder, by its own function."""
    (cell,) = [c.source for c in read(".py").cells if "def find_package" in c.source]
    names = {"REPOSITORY": repository, "pathlib": pathlib}
    function = cell[cell.index("def find_package") : cell.index("\n\n\nprobe")]
    exec(function, names)
    with contextlib.chdir(folder):
        return names["find_package"]()


def test_the_notebook_installs_the_clone_it_lies_in(tmp_path):
    assert find_package(COLAB) == f"{COLAB.parent}[train,demo]"
    assert find_package(tmp_path, "https://host/x").endswith("@ git+https://host/x")
    with pytest.raises(ValueError, match="is not in a clone of it; set REPOSIT"):
        find_package(tmp_path)


@pytest.mark.timeout(900)
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch, few_emoji):
    """With a tenth of the emoji, which the notebook finds prepared."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    shutil.copytree(few_emoji, tmp_path / "work" / "data")
    book = read(".ipynb")
    (parameters,) = [
        c for c in book.cells if "parameters" in c.metadata.get("tags", ())
    ]
    parameters.source = (
        f"REPOSITORY, WORK, STEPS = '', {str(tmp_path / 'work')!r}, 8\n"
        f"TRAINING_FLAGS = {shrunk.flags()!r}"
    )
    client = nbclient.NotebookClient(
        book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [
        output
        for cell in book.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) == 1
    assert "similar: squared distance" in book.cells[-2].outputs[0].text
    assert (tmp_path / "work" / "model" / "model.stablehlo").exists()
