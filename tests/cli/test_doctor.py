"""`deeprank doctor`: versions, extras and no personal data."""

import importlib.metadata
import json
import pathlib

import numpy as np
import pytest

from deeprank_jax.cli import doctor
from deeprank_jax.cli.__main__ import main
from deeprank_jax.inference import embedding_parts, embedding_table
from deeprank_jax.similarities import create_learned, stored, train


@pytest.fixture
def report(monkeypatch, tmp_path):
    """Facts of an installation whose home folder is elsewhere."""
    home = tmp_path / "home" / "somebody"
    (home / ".cache" / "deeprank_jax" / "xla").mkdir(parents=True)
    (home / ".cache" / "deeprank_jax" / "xla" / "program").write_bytes(b"x" * 2**20)
    (home / "here").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={home}/dump")
    monkeypatch.chdir(home / "here")
    return doctor.inspect_installation()


def test_versions_are_those_of_the_installed_packages(report):
    packages = report["packages"]
    assert packages["jax"] == importlib.metadata.version("jax")
    assert report["version"] == importlib.metadata.version("deeprank-jax")
    assert "cpu" in report["devices"]
    assert "usable of" in report["cores"]


def test_paths_under_the_home_folder_are_shortened(report):
    text = doctor.format_report(report)
    assert "somebody" not in text
    assert report["environment"]["XLA_FLAGS"] == "--xla_dump_to=~/dump"
    assert report["caches"] == {"~/.cache/deeprank_jax/xla": "0.0 GiB in 1 files"}
    assert report["free_disk"].keys() == {"~", "~/here"}


def test_a_missing_extra_gets_its_install_line(monkeypatch):
    requires = {
        "deeprank-jax": [
            "numpy>=2",
            'flax<0.13,>=0.12; extra == "train"',
            'deeprank-jax[train]; extra == "demo"',
            'emoji_pictures==1; extra == "demo"',
            "jax[rocm]; sys_platform == 'linux' and extra == 'rocm'",
        ],
        "jax": ["jaxlib", 'jax-rocm-plugin; extra == "rocm"'],
    }
    installed = {"deeprank-jax", "numpy", "flax", "jax", "jaxlib"}

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "requires", requires.get)
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor._extra("train") == "works"
    install = "pip install 'deeprank-jax[demo]'"
    assert doctor._extra("demo") == f"missing emoji_pictures: {install}"
    assert doctor._extra("rocm").startswith("missing jax-rocm-plugin: pip install")
    installed.remove("flax")
    assert doctor._extra("demo") == f"missing emoji_pictures, flax: {install}"


def test_jax_that_does_not_start_is_reported(monkeypatch):
    import jax

    def fail():
        raise RuntimeError("no driver")

    monkeypatch.setattr(jax, "local_devices", fail)
    assert doctor._devices() == "JAX does not start: RuntimeError: no driver"


def test_the_command_prints_text_or_json(capsys):
    main(["doctor"])
    text = capsys.readouterr().out
    assert "\npackages\n" in text
    assert str(pathlib.Path.home()) not in text
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["extras"]["train"] == "works"


@pytest.fixture
def unfinished(tmp_path):
    """Returns the folder of a table of embeddings that is not finished."""
    parts = tmp_path / "photos.parquet.parts"
    parts.mkdir()
    (parts / embedding_parts.IDENTITY).write_text('{"model": "m", "images": "i"}')
    for start in (0, 1024):
        rows = np.ones((3, 4), np.float32) * start
        embedding_table._write(
            rows, np.arange(start, start + 3), embedding_table._part(parts, start)
        )
    return parts


@pytest.mark.parametrize("name", ["photos.parquet", "photos.parquet.parts"])
def test_an_unfinished_table_is_checked(unfinished, capsys, name):
    path = unfinished.with_name(name)
    main(["doctor", str(path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "intact: parts.json, 000000000000.npz, 000000001024.npz"
    assert "not finished: run the same `deeprank embed` again to continue" in lines[1]
    part = unfinished / "000000001024.npz"
    content = bytearray(part.read_bytes())
    content[content.index(np.float32(1024).tobytes())] ^= 1
    part.write_bytes(content)
    with pytest.raises(SystemExit, match=r"1 of 3 parts are damaged\. 000000001024"):
        main(["doctor", str(path)])


def test_a_similarity_is_checked(tmp_path, capsys):
    rng = np.random.default_rng(0)
    similarity = create_learned("bilinear", {"steps": 2})
    labels = np.repeat(np.arange(4), 3)
    metrics = train(similarity, rng.normal(size=(12, 3)), labels)
    path = tmp_path / "oasis.npz"
    stored.save_similarity(
        path,
        stored.StoredSimilarity(
            similarity=similarity, kind="bilinear", options={"steps": 2},
            model="abc", dim=3, seed=0, metrics=metrics,
        ),
    )  # fmt: skip
    main(["doctor", str(path)])
    assert capsys.readouterr().out == "intact: similarity\n"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"1 of 1 parts are damaged\. similarity: "):
        main(["doctor", str(path)])


def test_a_table_that_is_none_is_named(tmp_path):
    path = tmp_path / "photos.parquet"
    path.write_bytes(b"PAR1 of nothing")
    with pytest.raises(
        SystemExit, match=r"1 of 1 parts are damaged\. table: .* is not a"
    ):
        main(["doctor", str(path)])
    with pytest.raises(SystemExit, match="is no run, exported model, index, table of"):
        main(["doctor", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"gone does not exist; give the --workdir"):
        main(["doctor", str(tmp_path / "gone")])
