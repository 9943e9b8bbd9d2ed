"""A core installation, to which all other packages are blocked, uses a model."""

import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import deeprank_jax

BLOCK = """
import json, sys
blocked, words = json.loads(sys.argv[1])
for name in blocked:
    sys.modules[name] = None
"""


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def core_distributions():
    """Returns the distributions that an installation without extras brings."""
    names, pending = set(), ["deeprank-jax"]
    while pending:
        name = normal(pending.pop())
        if name in names:
            continue
        names.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in requirements:
            if "extra ==" not in requirement:
                pending.append(re.match(r"[\w.-]+", requirement)[0])
    return names


@pytest.fixture(scope="module")
def run_core():
    """Runs a program that finds the core packages only."""
    core = core_distributions()
    blocked = [
        module
        for module, names in importlib.metadata.packages_distributions().items()
        if not module.startswith("_") and not {normal(x) for x in names} & core
    ]
    assert {"cv2", "flax", "matplotlib", "pyarrow", "sklearn"} <= set(blocked)

    def call(program, *words):
        return subprocess.run(
            [sys.executable, "-c", BLOCK + program,
             json.dumps([blocked, [str(word) for word in words]])],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return call


COMMAND = "from deeprank_jax.cli.__main__ import main; main(words)"


def test_the_core_is_small():
    core = core_distributions()
    assert len(core) <= 20
    assert {"jax", "numpy", "pillow", "safetensors"} <= core


def test_help_needs_the_core_only(run_core):
    done = run_core(COMMAND, "--help")
    assert done.returncode == 0, done.stderr
    assert "search" in done.stdout


@pytest.mark.slow
def test_a_model_embeds_with_the_core_only(run_core, exported, photos):
    paths = sorted(map(str, photos.rglob("*.png")))[:5]
    program = (
        "import deeprank_jax\n"
        "print(json.dumps(deeprank_jax.load(words[0]).embed(words[1:]).tolist()))"
    )
    done = run_core(program, exported, *paths)
    assert done.returncode == 0, done.stderr
    expected = deeprank_jax.load(exported).embed(paths)
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-3)


@pytest.mark.slow
def test_commands_that_need_the_core_only(run_core, exported, photos, tmp_path):
    one, other = sorted(photos.rglob("*.png"))[:2]
    index = tmp_path / "photos.index"
    for words in (
        ["compare", one, other, f"--model={exported}"],
        ["index", photos, f"--model={exported}", f"--out={index}"],
        ["search", one, f"--index={index}"],
        ["rank", photos, f"--image={one}", f"--model={exported}"],
    ):
        done = run_core(COMMAND, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert pathlib.Path(one).name in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["embed", "PHOTOS", "--model=MODEL", "--out=OUT/x.parquet"], "search"),
        (["duplicates", "PHOTOS", "--model=MODEL"], "search"),
        (["export", "--workdir=RUN", "--out=OUT/model"], "train"),
        (["index", "PHOTOS", "--model=efficientnet_lite0", "--out=OUT/index"], "train"),
        (["compare", "IMAGE", "IMAGE", "--model=MODEL", "--out=OUT/x.html"], "search"),
        (["train", "--config=folder", "--config.data.dir=PHOTOS"], "train"),
    ],
)
def test_other_commands_name_their_extra(
    run_core, trained, exported, photos, tmp_path, words, extra
):
    image = next(photos.rglob("*.png"))
    places = {
        "IMAGE": image, "MODEL": exported, "OUT": tmp_path, "PHOTOS": photos,
        "RUN": trained,
    }  # fmt: skip
    for key, place in places.items():
        words = [word.replace(key, str(place)) for word in words]
    done = run_core(COMMAND, *words)
    assert done.returncode == 1
    assert f"pip install 'deeprank-jax[{extra}]'" in done.stderr.splitlines()[-1]
