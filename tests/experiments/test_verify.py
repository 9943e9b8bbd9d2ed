"""`deeprank doctor FOLDER`: every damage of a run, a model and an index is named."""

import pathlib
import shutil

import numpy as np
import pytest

from deeprank_jax.cli.__main__ import main
from deeprank_jax.errors import DataError
from deeprank_jax.experiments.verify import verify
from deeprank_jax.search.index import VectorIndex


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "photos.index"
    with VectorIndex.create(path, dim=3, model_fingerprint="m") as opened:
        opened.add(["a", "b", "c"], np.eye(3, dtype=np.float32))
    return path


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_run_is_checked_by_its_checkpoints(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    parts = verify(run)
    assert {pathlib.Path(name).parts[0] for name in parts} >= {
        "checkpoints", "checkpoints_copy", "config.json", "results.json",
    }  # fmt: skip
    assert len(parts) >= 3
    assert not any(parts.values())
    main(["doctor", str(run)])
    assert capsys.readouterr().out.startswith("intact: checkpoints/")
    flip(run / "checkpoints" / "8" / "run" / "metadata")
    assert verify(run)["checkpoints/8"] == "run/metadata has changed"
    with pytest.raises(SystemExit) as ended:
        main(["doctor", str(run)])
    assert "1 of" in str(ended.value)
    assert "checkpoints/8: run/metadata has changed" in str(ended.value)
    # Nothing was mended or moved.
    assert (run / "checkpoints" / "8").exists()


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "results.json",
        "intervals.json",
        "report/index.html",
        "run.sha256",
    ],
)
def test_the_files_of_a_run_are_checked(trained, tmp_path, name):
    run = shutil.copytree(trained, tmp_path / "run")
    assert verify(run)["results.json"] is None
    flip(run / name)
    assert any(verify(run).values())
    if name != "run.sha256":
        assert "has changed since" in verify(run)[name]
        (run / name).unlink()
        assert "No such file" in verify(run)[name]


def test_a_model_is_checked(exported, tmp_path):
    model = shutil.copytree(exported, tmp_path / "model")
    assert verify(model) == {"model": None}
    flip(model / "weights.safetensors")
    assert "weights.safetensors has changed" in verify(model)["model"]


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_an_index_is_checked(index, suffix):
    assert verify(index) == {"index": None}
    (file,) = index.glob(f"batch-*{suffix}")
    flip(file)
    assert file.name in verify(index)["index"]


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_another_folder_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="give the --workdir of"):
        verify(tmp_path / name)
