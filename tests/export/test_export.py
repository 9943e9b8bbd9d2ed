"""A run leaves the project as one folder, whose forms agree with its checkpoint."""

import contextlib
import dataclasses
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
from helpers import shrunk
from helpers.processes import is_running
import jax
import jax.export
import numpy as np
import optax
from PIL import Image
import pytest

import deeprank_jax
from deeprank_jax import checksums
from deeprank_jax import config as config_lib
from deeprank_jax.configs import deep_ranking, emoji, emoji_lite0, keras_vgg16
from deeprank_jax.data import create_records
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import pixels
from deeprank_jax.errors import ConfigError
from deeprank_jax.evaluation import calibration
from deeprank_jax.export import copies, export_run, network, run, verification
from deeprank_jax.inference import artifact
from deeprank_jax.inference.model import Model
from deeprank_jax.models import cpu_ops
from deeprank_jax.training import checkpoints
from deeprank_jax.training import network as network_lib
from deeprank_jax.training import step as step_lib
from deeprank_jax.training import workdir as workdir_lib

ROOT = pathlib.Path(__file__).parents[2]
# What embed.py must not need.
_WITHOUT_US = """
import runpy, sys
class Ban:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith(("deeprank_jax", "flax", "orbax")), name
sys.meta_path.insert(0, Ban())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def embed_alone(model, images, tmp_path):
    """Calls a model's own embed.py where none of this project can be imported."""
    np.save(tmp_path / "images.npy", images)
    paths = [tmp_path / name for name in ("images.npy", "embeddings.npy")]
    subprocess.run(
        [sys.executable, "-c", _WITHOUT_US, model / artifact.USE, *paths],
        cwd=tmp_path, check=True, timeout=120,
    )  # fmt: skip
    return np.load(paths[1])


def embed_by_checkpoint(workdir, images):
    """Embeds as the training code does."""
    config = config_lib.read_run_config(workdir)
    saved = checkpoints.read_network(workdir)
    model = network_lib.create_model(config, None)
    graphdef, state = step_lib.create_train_state(model, optax.identity())
    state = step_lib.with_network_arrays(state, saved.arrays)
    return np.asarray(jax.jit(step_lib.make_embed_step(graphdef))(state, images))


def test_an_export_says_that_the_images_have_changed(
    photos, trained, tmp_path, warnings_logged
):
    own = shutil.copytree(photos, tmp_path / "photos")
    workdir = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["dir"] = str(own)
    (workdir / "config.json").write_text(json.dumps(config))
    workdir_lib.Workdir(workdir).seal()
    export_run(workdir, tmp_path / "same", force_threshold=True)
    assert not any("not those of the run" in line for line in warnings_logged)
    for path in own.rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    export_run(workdir, tmp_path / "other", force_threshold=True)
    assert any("not those of the run" in line for line in warnings_logged)
    card = (tmp_path / "other" / "README.md").read_text()
    assert "| Changed images | train, validation, test: since the run;" in card
    assert "Changed images" not in (tmp_path / "same" / "README.md").read_text()


def test_the_folder_stands_alone_and_agrees(trained, exported, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    alone = embed_alone(exported, images, tmp_path)
    wanted = embed_by_checkpoint(trained, images)
    assert wanted.shape == (5, 8)
    np.testing.assert_allclose(alone, wanted, atol=1e-5)
    # As many images as there are: the batch is symbolic.
    one = embed_alone(exported, images[:1], tmp_path)
    np.testing.assert_allclose(one, wanted[:1], atol=1e-5)


def test_the_folder_says_what_it_is(trained, exported):
    info = artifact.read_artifact(exported).info
    files = {p.name for p in exported.iterdir()}
    assert files == {
        artifact.CARD, artifact.CONFIG, artifact.INFO, artifact.STABLEHLO,
        artifact.USE, artifact.WEIGHTS, checksums.CHECKSUMS,
    }  # fmt: skip
    assert info["agreement"]["stablehlo"] <= verification.TOLERANCE
    assert info["agreement"]["images"] > 4
    assert info["preprocessing"]["image_size"] == 16
    results = json.loads((trained / "results.json").read_text())
    assert info["metrics"] == results["test"]
    assert info["checkpoint_step"] == int(checkpoints.read_network(trained).where.name)
    assert info["copies"]["distance"] > 0
    card = (exported / artifact.CARD).read_text()
    recall = results["test"]["retrieval"]["recall@1"]["model"]
    assert f"| retrieval: recall@1 | {recall:.3f} |" in card
    assert info["fingerprint"] in card
    for word in ("{{", "}}", "{%", "None", "nan"):
        assert word not in card


def test_the_first_numbers_of_an_embedding_are_exported(trained, exported, tmp_path):
    folder = export_run(
        trained, tmp_path / "short", embed_prefix=3, force_threshold=True
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    whole = embed_by_checkpoint(trained, images)
    expected = whole[:, :3] / np.linalg.norm(whole[:, :3], axis=1, keepdims=True)
    (tmp_path / "alone").mkdir()
    alone = embed_alone(folder, images, tmp_path / "alone")
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    model = Model(folder)
    assert (model.embedding_dim, model.config.model.embed_prefix) == (3, 3)
    whole_model = artifact.read_artifact(exported).info
    assert model.fingerprint != whole_model["fingerprint"]
    info = artifact.read_artifact(folder).info
    assert (info["metrics"], info["shortened"]) == ({}, True)
    card = (folder / artifact.CARD).read_text()
    assert "| Length | the first 3 numbers of an embedding of the run |" in card
    assert "No metrics: those of the run are of longer embeddings." in card
    with pytest.raises(ConfigError, match=r"embed_prefix must be from 0 .* got 9"):
        export_run(trained, tmp_path / "long", embed_prefix=9)


def test_the_distances_are_calibrated_on_validation(monkeypatch):
    def split(name):
        rng = np.random.default_rng(["train", "validation", "test"].index(name))
        labels = np.repeat(np.arange(9), 8)
        rows = rng.normal(size=(9, 4))[labels] + 0.4 * rng.normal(size=(72, 4))
        return rows, labels

    evaluated = object.__new__(run._EvaluatedNetwork)
    evaluated._config = emoji.get_config()
    evaluated._records = {"validation": None, "test": None}
    monkeypatch.setattr(evaluated, "_embed_split", split)
    monkeypatch.setattr(copies, "read_some", lambda records: [])
    evaluated.embed = None
    found = evaluated.calibrate(0.8, force=True)
    wanted = calibration.calibrate(*split("validation"), 0.8)
    in_tens = calibration.calibrate(*split("validation"), 0.8, prior=0.1)
    assert 0 < in_tens.distance < 0.9 * wanted.distance
    assert found["threshold"]["distance"] == wanted.distance
    assert found["cluster_distance"] == in_tens.distance
    tested = calibration.verify(*split("test"), wanted.distance)
    assert found["threshold"]["validation"] == dataclasses.asdict(wanted)
    assert found["threshold"]["test"] == dataclasses.asdict(tested)
    assert tested.precision != wanted.precision


def test_a_threshold_that_validation_does_not_support_is_withheld(
    trained, tmp_path, warnings_logged
):
    folder = export_run(trained, tmp_path / "model")
    info = json.loads((folder / artifact.INFO).read_text())
    assert info["threshold"] is None
    reason = (
        "validation has 2 pairs of one class and 13 of two; a precision of 0.95 need"
    )
    assert reason in info["no_threshold"]
    assert any("--force_threshold" in text for text in warnings_logged)
    assert reason in (folder / artifact.CARD).read_text()
    assert info["cluster_distance"] is None
    assert "a precision of 0.95 needs 20 and 513" in info["no_cluster_distance"]
    assert info["no_cluster_distance"] in (folder / artifact.CARD).read_text()
    # No verdict is given without a reason.
    model = deeprank_jax.load(folder)
    image = np.zeros((16, 16, 3), np.uint8)
    assert str(model.compare(image, image)).endswith(f"; {info['no_threshold']}")


def test_the_card_says_which_classes_were_seen(trained, exported):
    """Here some images of the training classes became validation, but none of test."""
    info = json.loads((exported / artifact.INFO).read_text())
    assert info["dataset"]["seen_classes"] == ["validation"]
    card = (exported / artifact.CARD).read_text()
    assert "36 images of classes that were not in training:" in card
    assert re.search(r"\| Classes of training \| \d+: 'class \d\d', 'class", card)
    records = create_records(config_lib.read_run_config(trained).data)
    classes = {name: {*split.labels[:, -1].tolist()} for name, split in records.items()}
    assert classes["train"] >= classes["validation"]
    assert not classes["train"] & classes["test"]


def test_a_forced_threshold_says_so(exported):
    info = json.loads((exported / artifact.INFO).read_text())
    reason = info["threshold"]["unsupported"]
    assert "validation has 2 pairs of one class and 13 of two" in reason
    assert info["threshold"]["unseen_classes"] is None
    assert (
        f"by request, though not confirmed on other classes**: {reason}"
        in (exported / artifact.CARD).read_text()
    )


@pytest.mark.parametrize(
    ("low", "reason"), [(0.7, "is 0.80, from 0.70 to 0.90"), (0.85, "")]
)
def test_a_threshold_may_be_a_tenth_less_precise_on_other_classes(low, reason):
    unseen = calibration.UnseenPrecision(mean=0.8, low=low, high=0.9)
    assert run._why_unsupported(unseen, 0.95, 20)[-26:] == reason


def test_one_program_holds_all_platforms(exported):
    code = bytearray((exported / artifact.STABLEHLO).read_bytes())
    assert jax.export.deserialize(code).platforms == network.PLATFORMS


def test_an_export_that_disagrees_is_not_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "TOLERANCE", -1.0)
    with pytest.raises(run.ExportError, match="stablehlo differs from the network"):
        export_run(trained, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_cannot_be_is_told_at_once(tmp_path):
    with pytest.raises(ValueError, match="precision must be in"):
        export_run(tmp_path, tmp_path / "model", precision=2)


def test_what_cannot_be_exported_is_told(trained, exported, tmp_path):
    with pytest.raises(ValueError, match="is not a run, since it has no config"):
        export_run(tmp_path, tmp_path / "model")
    with pytest.raises(ValueError, match="exists already"):
        export_run(trained, exported)
    with pytest.raises(run.ExportError, match="cannot be started"):
        export_run(trained, tmp_path / "model", onnx_python="/no/python")
    other = shutil.copytree(trained, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["model"]["embedding_dim"] = 9
    (other / "config.json").write_text(json.dumps(config))
    workdir_lib.Workdir(other).seal()
    with pytest.raises(checkpoints.CheckpointError, match="belongs to another network"):
        export_run(other, tmp_path / "model")
    (other / "config.json").write_text("{")
    shutil.rmtree(other / "checkpoints")
    remedy = r"config\.json cannot be read .*by `rm \S+config.json`, and run the train"
    with pytest.raises(ValueError, match=remedy):
        export_run(other, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_damaged_config_is_that_of_the_checkpoint(trained, tmp_path, warnings_logged):
    config = config_lib.read_run_config(trained)
    other = shutil.copytree(trained, tmp_path / "other")
    text = (other / "config.json").read_text()
    for damaged in ("{", text.replace('"embedding_dim": 8', '"embedding_dim": 9')):
        warnings_logged.clear()
        (other / "config.json").write_text(damaged)
        assert config_lib.flatten_config(
            config_lib.read_run_config(other)
        ) == config_lib.flatten_config(config)
        assert "the values are those of the latest checkpoint" in warnings_logged[0]
    for step in (other / "checkpoints").glob("*/run/metadata"):
        step.write_bytes(step.read_bytes().replace(b"8", b"9"))
    with pytest.raises(ValueError, match="and no checkpoint has its values; delete it"):
        config_lib.read_run_config(other)


def test_data_that_have_moved_are_given(trained, photos, tmp_path):
    other = shutil.copytree(trained, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["data"]["dir"] = "moved/photos"
    config["evaluation"]["evaluators"]["rated_triplets"] = {"file": "/home/her/r.csv"}
    (other / "config.json").write_text(json.dumps(config))
    workdir_lib.Workdir(other).seal()
    with pytest.raises(
        ValueError, match=r"moved/photos: there is no .* give --data_di"
    ):
        export_run(other, tmp_path / "model")
    options = {"force_threshold": True, "data_dir": str(photos)}
    path = export_run(other, tmp_path / "model", **options)
    # The path of the images is no part of the model.
    text = "".join(
        x.read_text() for x in path.iterdir() if x.suffix in (".json", ".md")
    )
    assert str(photos.parent) not in text
    assert "/home/her" not in text
    exported_config = json.loads((path / "config.json").read_text())
    assert exported_config["data"]["dir"] == "photos"
    evaluators = exported_config["evaluation"]["evaluators"]
    assert evaluators["rated_triplets"] == {"file": "r.csv"}


@pytest.mark.parametrize(
    "config",
    [
        emoji,
        deep_ranking,
        keras_vgg16,
        # tests/export/test_pretrained.py exports the same trunk.
        pytest.param(emoji_lite0, marks=pytest.mark.full),
    ],
)
def test_every_kind_of_network_is_exported(config, tmp_path):
    config = shrunk.shrink(config.get_config())
    config.model.weights = ""
    num_classes = None if config.task.name == "ranking" else 7
    model = network_lib.create_model(config, num_classes)
    graphdef, state = step_lib.create_train_state(model, optax.identity())
    arrays = jax.tree.map(np.asarray, step_lib.network_arrays(state))
    embed, weights = network.create_embed(config, arrays, source="here")
    assert not any(name.startswith("params/head") for name in weights)
    size = config.data.image_size
    network.write_stablehlo(tmp_path / "model", embed, weights, size)
    called = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    wanted = jax.jit(step_lib.make_embed_step(graphdef))(state, images)
    np.testing.assert_allclose(called.call(weights, images), wanted, atol=1e-5)


def test_plain_forms_leave_no_choice_of_platform():
    x = np.zeros((1, 8, 8, 3), np.float32)
    # A new function each time: what was traced once is not traced again.
    text = lambda: str(jax.make_jaxpr(lambda x: cpu_ops.max_pool(x, 3, 2))(x))
    assert "platform_index" in text()
    with cpu_ops.plain_forms():
        assert "platform_index" not in text()
    assert "platform_index" in text()


def test_worse_copies_are_smaller_and_near():
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3)), 8, 0), 8, 1)
    worse = copies.degrade(image.astype(np.uint8))
    assert worse.shape == (48, 48, 3)
    assert abs(worse.mean() - image.mean()) < 3


def test_copies_stay_within_the_distances_that_are_told():
    rng = np.random.default_rng(0)
    images = [
        np.kron(rng.integers(0, 256, (8, 8, 1)), np.ones((8, 8, 3))).astype(np.uint8)
        for _ in range(40)
    ]
    split = Records(
        name="some",
        labels=np.zeros((40, 1), np.int32),
        level_names=("label",),
        label_names=(("one",),),
        read=lambda index: images[index],
        describe=str,
    )
    prepare = lambda image: cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    embed = lambda x: x.reshape(len(x), -1)[:, ::7].astype(np.float32)
    found = copies.measure_copies(copies.read_some(split), prepare, embed)
    pairs = [(prepare(x)[None], prepare(copies.degrade(x))[None]) for x in images]
    for name, fn in (("distance", embed), ("pixel_distance", pixels)):
        by_hand = [np.sum((fn(a) - fn(b)) ** 2) for a, b in pairs]
        assert found[name] == pytest.approx(np.quantile(by_hand, 0.99), rel=1e-4)
        assert found[name] > np.median(by_hand) > 0


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_onnx_agrees_too(trained, tmp_path):
    subprocess.run(["make", ".venv-onnx"], cwd=ROOT, check=True)
    python = str(ROOT / ".venv-onnx" / "bin" / "python")
    model = export_run(trained, tmp_path / "model", onnx_python=python)
    info = artifact.read_artifact(model).info
    assert info["agreement"]["onnx"] <= verification.TOLERANCE
    assert (model / artifact.ONNX).stat().st_size > 1000
    assert "onnx " in (model / artifact.CARD).read_text()


# With a handler of Ctrl-C also where the tests run in the background.
_EXPORT = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("deeprank_jax.cli", run_name="__main__", alter_sys=True)
"""


def _list_children(pid: int) -> list[str]:
    children = []
    # The kernel lists a child at the thread that has started it.
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # The thread has ended.
            children += (thread / "children").read_text().split()
    return children


def test_a_signal_ends_the_process_that_verifies_and_leaves_nothing(trained, tmp_path):
    command = [sys.executable, "-c", _EXPORT, "export", f"--workdir={trained}"]
    command.append(f"--out={tmp_path / 'model'}")
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert any("in a process of its own" in line for line in process.stderr)
        while not (pids := _list_children(process.pid)):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    # The child may have ended just before.
    sentence = "deeprank export: SIGINT: stopped; run the same command again."
    assert stderr.splitlines()[-1:] == [sentence]
    assert "Traceback" not in stderr
    assert not list(tmp_path.iterdir())
    assert not [pid for pid in pids if is_running(pid)]
