"""Models from elsewhere are refused in a sentence, before they can do harm."""

import json
import os
import pwd
import sys
import time

from helpers import hostile_models
from helpers.hostile_models import INFO, WEIGHTS, changed, write_model
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import checksums
from deeprank_jax.errors import ArtifactError
from deeprank_jax.inference import artifact, pretrained, program
from deeprank_jax.inference.model import Model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keeps the marks of checked programs apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_trial(monkeypatch):
    """Marks every program as checked, which saves the start of a process."""
    monkeypatch.setattr(program, "ensure_checked", lambda model: None)


def refuse(path, match, *, seconds=2.0):
    start = time.monotonic()
    with pytest.raises(ArtifactError, match=match):
        Model(path)
    assert time.monotonic() - start < seconds


@pytest.mark.slow
def test_a_model_is_tried_once(tmp_path, monkeypatch):
    path = write_model(tmp_path / "model")
    images = np.full((2, 8, 8, 3), 7, np.uint8)
    expected = [[7, 7, 7, 0]] * 2
    np.testing.assert_allclose(Model(path).embed_prepared(images), expected)
    monkeypatch.setattr(program, "_try_in_child", lambda folder: "it was tried again")
    np.testing.assert_allclose(Model(path).embed_prepared(images), expected)
    write_model(tmp_path / "other", weights={"kernel": 2 * WEIGHTS["kernel"]})
    refuse(tmp_path / "other", "because it was tried again; export the run again")


@pytest.fixture
def limit_trial(tmp_path, monkeypatch):
    """Gives the trial a limit of the shell."""

    def limit(option):
        python = tmp_path / "limited_python"
        python.write_text(
            f'#!/bin/sh\nulimit {option} || exit 3\nexec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        monkeypatch.setattr(program.sys, "executable", str(python))

    return limit


@pytest.mark.slow
def test_a_program_without_end_is_refused(tmp_path, limit_trial):
    limit_trial("-S -t 7")
    code = hostile_models.program(hostile_models.endless)
    path = write_model(tmp_path / "model", code=code)
    match = "refused, because it has not ended after 120 seconds of the processor"
    refuse(path, match, seconds=300)


def test_a_trial_on_a_busy_host_is_a_time_out(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "_SECONDS", 0.5)
    path = write_model(tmp_path / "model")
    refuse(path, "took longer than 0.5 seconds; try again when the machine is less")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-v 12000000", "-S -v 12000000", "-t 100"])
def test_an_honest_program_passes_below_lower_limits(tmp_path, limit_trial, option):
    limit_trial(option)
    path = write_model(tmp_path / "model")
    images = np.full((2, 8, 8, 3), 7, np.uint8)
    np.testing.assert_allclose(Model(path).embed_prepared(images), [[7, 7, 7, 0]] * 2)


def no_home(monkeypatch):
    """Removes HOME, and the user from the list of users."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])


@pytest.mark.parametrize(
    "remove",
    [
        no_home,
        # Raises as a folder of another user does, but for root, too.
        lambda monkeypatch: monkeypatch.setenv("HOME", f"/{'x' * 300}"),
        lambda monkeypatch: monkeypatch.setenv("HOME", "/proc"),
    ],
    ids=["none", "closed", "not writable"],
)
def test_a_model_is_used_without_a_home(tmp_path, monkeypatch, caplog, remove):
    path = write_model(tmp_path / "model")
    monkeypatch.delenv("XDG_CACHE_HOME")
    remove(monkeypatch)
    trials = []
    monkeypatch.setattr(program, "_try_in_child", trials.append)
    for _ in range(2):
        caplog.clear()
        Model(path)
        (warning,) = [x for x in caplog.records if x.levelname == "WARNING"]
        assert "set XDG_CACHE_HOME to a folder" in warning.getMessage()
    assert len(trials) == 2
    caplog.clear()
    program.trust(path)
    assert len([x for x in caplog.records if x.levelname == "WARNING"]) == 1


def test_a_cache_without_a_home_names_the_remedy(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    no_home(monkeypatch)
    with pytest.raises(ArtifactError, match="set XDG_CACHE_HOME to a folder"):
        pretrained.cached_folder("efficientnet_lite0")


@pytest.mark.slow
def test_a_program_that_calls_the_process_is_refused(tmp_path):
    code = hostile_models.program(hostile_models.calling)
    path = write_model(tmp_path / "model", code=code)
    refuse(path, "calls 'xla_ffi_python_cpu_callback', which is no part", seconds=20)


def test_a_trial_that_crashes_is_a_sentence(tmp_path, monkeypatch):
    path = write_model(tmp_path / "model")
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setattr(program.sys, "executable", "/bin/false")
    refuse(path, "its trial ended with the status 1;")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2; echo no memory >&2; exit 4\n")
    python.chmod(0o755)
    monkeypatch.setattr(program.sys, "executable", str(python))
    refuse(path, r"ended with the status 4 \(no memory\);")


def test_operations_are_checked():
    text = (
        jax.jit(hostile_models.embed).lower(WEIGHTS, np.zeros((2, 8, 8, 3))).as_text()
    )
    program.check_text(text)
    for line, match in [
        ("%1 = stablehlo.custom_call @x.y(%0)", "calls 'x.y'"),
        ('%1 = stablehlo.custom_call @"a b"(%0)', "calls 'a b'"),
        ('"stablehlo.custom_call"(%0) <{call_target_name = "x"}>', "calls None"),
        ('%1 = "stablehlo.infeed"(%0)', "has 'infeed'"),
        ("%1 = stablehlo.iota : tensor<99999x99999xf32>", "shape 99999x99999"),
        ("%1 = stablehlo.iota : tensor<?x99999x99999xf32>", "shape .x99999x99999"),
    ]:
        with pytest.raises(ValueError, match=match):
            program.check_text(f"{text}\n{line}")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weights": {"kernel": np.zeros((3, 5), np.float32)}}, "e.g. kernel"),
        ({"weights": {"other": WEIGHTS["kernel"]}}, "are not its own, e.g. kernel"),
        ({"weights": {"kernel": WEIGHTS["kernel"].astype(np.float16)}}, "e.g. kernel"),
        ({"weights": {}}, "the weights are not its own"),
        ({"weights": b"no weights"}, "weights.safetensors cannot be read"),
        ({"weights": b"\xff" * 80}, "weights.safetensors cannot be read"),
        (
            {"weights": b'\x38\0\0\0\0\0\0\0{"x":{"dtype":"F32","shape":[1000000000000]'
             b',"data_offsets":[0,4]}}'},
            "weights.safetensors cannot be read",
        ),
        ({"code": b""}, "stablehlo cannot be used"),
        ({"code": b"x" * 1000}, "stablehlo cannot be used"),
        ({"code": hostile_models.program()[:900]}, "stablehlo cannot be used"),
        ({"code": hostile_models.program(size=9)}, "model.json says 8 pixels"),
        (
            {"code": hostile_models.program(images_dtype=jnp.float32)},
            "model.json says 8 pixels",
        ),
        ({"info": changed("agreement.dim", 5)}, "model.json says 5 dimensions"),
        ({"code": hostile_models.program(lambda w, x: [w, x])}, "it returns"),
    ],
)  # fmt: skip
def test_programs_and_weights_must_fit(tmp_path, no_trial, options, match):
    refuse(write_model(tmp_path / "model", **options), match)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[(path, None) for path in (
            "fingerprint", "preprocessing", "preprocessing.image_size", "threshold",
            "agreement.dim", "copies.distance", "dataset.name", "cluster_distance",
        )],
        *[("preprocessing.image_size", x) for x in (10**9, 0, -1, "a", 8.0, True, [8])],
        *[("agreement.dim", x) for x in (10**9, -1, "a", {})],
        ("preprocessing.fit", "shrink"), ("preprocessing.fit", ["crop"]),
        ("preprocessing.max_pixels", 1e9), ("preprocessing", [1]),
        ("threshold", 3), ("threshold", {"distance": "a"}), ("threshold", {}),
        ("cluster_distance", float("nan")), ("cluster_distance", -1.0),
        ("cluster_distance", float("inf")), ("copies.distance", "0"),
        ("fingerprint", "\x1b[31m"), ("dataset.name", ["x"]), ("dataset", 7),
    ],
)  # fmt: skip
def test_model_json_has_a_schema(tmp_path, no_trial, path, value):
    model = write_model(tmp_path / "model", info=changed(path, value))
    refuse(model, rf"model\.json cannot be used: {path}.* (is|expected|missing)")


@pytest.mark.parametrize(
    ("path", "value"),
    [("task", None), ("task", [1]), ("data", None), ("data", 3), ("data.dir", [1]),
     ("data.source", "x"), ("sampler", None), ("model", [])],
)  # fmt: skip
def test_config_json_has_a_schema(tmp_path, no_trial, path, value):
    settings = changed(path, value, hostile_models.config())
    model = write_model(tmp_path / "model", settings=settings)
    refuse(model, r"config\.json cannot be used")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"info": DEEP}, "model.json cannot be read .it is nested too deeply"),
        ({"info": f'{{"x": {"9" * 5000}}}'}, "model.json cannot be read"),
        ({"info": " " * 2**24 + json.dumps(INFO)}, "more than the limit of 16,777,216"),
        ({"settings": DEEP}, "config.json cannot be used: it is nested too deeply"),
        (
            {"settings": changed("data.dir", json.loads("[" * 500 + "]" * 500),
                                 hostile_models.config())},
            "config.json cannot be used",
        ),
        ({"settings": "[1]"}, "config.json cannot be used"),
    ],
    ids=["deep", "long number", "long", "deep config", "deep value", "list"],
)  # fmt: skip
def test_descriptions_have_limits(tmp_path, no_trial, options, match):
    refuse(write_model(tmp_path / "model", **options), match)


@pytest.mark.parametrize(
    "name", [artifact.INFO, artifact.CONFIG, artifact.WEIGHTS, checksums.CHECKSUMS]
)
def test_only_files_are_read(tmp_path, no_trial, name):
    model = write_model(tmp_path / "model")
    hostile_models.make_pipe(model / name)
    refuse(model, f"{name} is missing|it has no {name}")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "x/../../secret", "./x"])
def test_checksums_name_files_of_the_folder_only(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    model = write_model(tmp_path / "model")
    with (model / checksums.CHECKSUMS).open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    refuse(model, "which is not in the folder; copy the whole folder again")


def link_all(folder, elsewhere):
    """Replaces all files by links, as in a cache of downloads."""
    elsewhere.mkdir()
    for path in folder.iterdir():
        path.rename(elsewhere / path.name)
        path.symlink_to(elsewhere / path.name)


def test_a_model_may_consist_of_links(tmp_path, no_trial):
    path = write_model(tmp_path / "model")
    link_all(path, tmp_path / "elsewhere")
    assert checksums.find_damage(path) is None
    images = np.full((2, 8, 8, 3), 7, np.uint8)
    np.testing.assert_allclose(Model(path).embed_prepared(images), [[7, 7, 7, 0]] * 2)


@pytest.mark.parametrize("name", [artifact.INFO, artifact.WEIGHTS, checksums.CHECKSUMS])
def test_other_files_behind_links_are_neither_used_nor_shown(tmp_path, no_trial, name):
    model = write_model(tmp_path / "model")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("password\n")
    (model / name).unlink()
    (model / name).symlink_to(elsewhere)
    with pytest.raises(ArtifactError, match=r"`cp -rL`|line 1 is not") as error:
        Model(model)
    assert "password" not in str(error.value)
    for target in ("/dev/zero", tmp_path / "nothing", tmp_path):
        (model / name).unlink()
        (model / name).symlink_to(target)
        refuse(model, f"{name} is missing; copy .* by `cp -rL`|it has no {name}")


def test_large_files_are_refused(tmp_path):
    model = write_model(tmp_path / "model")
    weights = model / artifact.WEIGHTS
    weights.unlink()
    with weights.open("wb") as file:
        file.truncate(10 * 2**30)
    refuse(model, "bytes, more than the limit of 8,589,934,592 for a model")
    os.unlink(weights)
