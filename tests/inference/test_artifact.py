"""Exported models are read only if they are as they were written."""

import json
import shutil
import subprocess

import pytest

from deeprank_jax import checksums
from deeprank_jax.inference import artifact


def write_model(path, info):
    with artifact.writing(path) as folder:
        (folder / artifact.INFO).write_text(info)
        (folder / artifact.WEIGHTS).write_bytes(b"weights")
        (folder / artifact.CONFIG).write_text("{}")
        (folder / artifact.STABLEHLO).write_bytes(b"program")


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "model", json.dumps({"format": artifact.FORMAT}))
    return tmp_path / "model"


def test_what_was_written_is_read(model):
    found = artifact.read_artifact(model)
    assert found.info == {"format": artifact.FORMAT}
    assert found.file(artifact.WEIGHTS).read_bytes() == b"weights"
    assert [p.name for p in model.parent.iterdir()] == ["model"]


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not installed")
def test_the_checksums_are_those_of_sha256sum(model):
    command = ["sha256sum", "--strict", "--check", checksums.CHECKSUMS]
    subprocess.run(command, cwd=model, check=True, capture_output=True)


def test_an_altered_file_is_named(model):
    (model / artifact.WEIGHTS).write_bytes(b"Weights")
    with pytest.raises(artifact.ArtifactError, match=r"safetensors has changed since"):
        artifact.read_artifact(model)


def test_a_missing_file_is_named(model):
    (model / artifact.WEIGHTS).unlink()
    with pytest.raises(artifact.ArtifactError, match=r"safetensors is missing"):
        artifact.read_artifact(model)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        (checksums.CHECKSUMS, "nonsense\n", "line 1 is not a checksum"),
        (checksums.CHECKSUMS, "", "does not list model.json"),
    ],
)
def test_damaged_checksums_are_told(model, name, text, match):
    (model / name).write_text(text)
    with pytest.raises(artifact.ArtifactError, match=match):
        artifact.read_artifact(model)


@pytest.mark.parametrize("name", [artifact.STABLEHLO, artifact.CONFIG])
def test_what_a_model_needs_has_to_be_listed(model, name):
    sums = model / checksums.CHECKSUMS
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if name not in line))
    (model / name).unlink()
    with pytest.raises(artifact.ArtifactError, match=f"does not list {name}"):
        artifact.read_artifact(model)


def test_a_newer_format_is_refused(tmp_path):
    write_model(tmp_path / "model", '{"format": 99}')
    with pytest.raises(artifact.ArtifactError, match="has the format 99"):
        artifact.read_artifact(tmp_path / "model")


@pytest.mark.parametrize("info", ["", "[1]", "{}"])
def test_a_file_that_says_nothing_is_refused(tmp_path, info):
    write_model(tmp_path / "model", info)
    with pytest.raises(artifact.ArtifactError, match=r"model\.json cannot be read"):
        artifact.read_artifact(tmp_path / "model")


def test_other_folders_are_no_models(tmp_path):
    with pytest.raises(artifact.ArtifactError, match="is not an exported model"):
        artifact.read_artifact(tmp_path)
    with pytest.raises(artifact.ArtifactError, match="there is no such folder"):
        artifact.read_artifact(tmp_path / "nowhere")


def test_nothing_is_written_over(model):
    with (
        pytest.raises(artifact.ArtifactError, match="exists already"),
        artifact.writing(model),
    ):
        pass
    assert artifact.read_artifact(model)


def write_half(path, error):
    with artifact.writing(path) as folder:
        (folder / artifact.INFO).write_text("{}")
        raise error


def test_what_fails_on_the_way_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        write_half(tmp_path / "model", KeyError())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path):
    full = OSError(28, "No space left on device")
    with pytest.raises(artifact.ArtifactError, match=r"No space left.*and nothing was"):
        write_half(tmp_path / "model", full)
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_is_of_weights_and_preprocessing(tmp_path):
    (tmp_path / artifact.WEIGHTS).write_bytes(b"a")
    one = artifact.fingerprint(tmp_path, {"image_size": 8, "fit": "crop"})
    assert one == artifact.fingerprint(tmp_path, {"fit": "crop", "image_size": 8})
    assert one != artifact.fingerprint(tmp_path, {"image_size": 9, "fit": "crop"})
    (tmp_path / artifact.WEIGHTS).write_bytes(b"b")
    assert one != artifact.fingerprint(tmp_path, {"image_size": 8, "fit": "crop"})
