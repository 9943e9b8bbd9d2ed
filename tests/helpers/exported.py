"""A small run and what is exported of it, made once for the tests that use a model."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from deeprank_jax.export import export_run
from deeprank_jax.inference.pretrained import cached_folder
from helpers import shrunk
from helpers.commands import run_command

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Returns a folder of images, one folder a class."""
    folder = tmp_path_factory.mktemp("own") / "photos"
    return shrunk.write_images(folder, num_classes=12, num_images=6)


@pytest.fixture(scope="session")
def trained(photos, tmp_path_factory):
    """Returns the workdir of a finished run on `photos`.

    Beside it are its command line, as JSON, and all that it printed.
    """
    workdir = tmp_path_factory.mktemp("runs") / "small"
    command = [
        "--config=configs/base.py", f"--config.data.dir={photos}",
        f"--workdir={workdir}", *shrunk.flags(),
    ]  # fmt: skip
    workdir.with_name("command.json").write_text(json.dumps(command))
    done = run_command(["train", *command], folder=ROOT, has_pictures=True)
    assert done.returncode == 0, done.stderr
    workdir.with_name("stdout.txt").write_text(done.stdout)
    workdir.with_name("stderr.txt").write_text(done.stderr)
    return workdir


@pytest.fixture(scope="session")
def pretrained_folder():
    """Returns the folder of EfficientNet-Lite0 as a model, in the cache of the tests.

    It embeds hundreds of images there, which takes less time if XLA optimizes a little.
    """
    level = "--xla_backend_optimization_level"
    flags = os.environ["XLA_FLAGS"].replace(f"{level}=0", f"{level}=1")
    code = "import deeprank_jax; deeprank_jax.load('efficientnet_lite0')"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "XLA_FLAGS": flags}
    )
    return cached_folder("efficientnet_lite0")


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """Returns the folder of the exported model."""
    # Validation has two classes.
    folder = tmp_path_factory.mktemp("models") / "model"
    return export_run(trained, folder, force_threshold=True)
