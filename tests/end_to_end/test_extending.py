"""Every example of docs/extending.md is short, and works as it stands."""

import json
import pathlib
import re
import shlex

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax import cli
from deeprank_jax.cli.__main__ import main
from deeprank_jax.config import apply_overrides, load_config
from deeprank_jax.config.loading import config_folder
from deeprank_jax.config.overrides import parse_words
from deeprank_jax.descriptors import compute
from deeprank_jax.training import loop

pytestmark = pytest.mark.usefixtures("without_pictures")

BASE = str(config_folder() / "base.py")
PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "extending.md").read_text("utf-8")
_SECTION = re.compile(
    r"^## (?:A|An) ([^\n]+)\n.*?```python\n(.*?)```\n(?:\n`(--config[^`]*)`\n)?",
    re.M | re.S,
)
EXAMPLES = {title: (code, flags) for title, code, flags in _SECTION.findall(PAGE)}
TRAINED = [title for title, (_, flags) in EXAMPLES.items() if flags]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=8)


def test_the_page_has_an_example_for_each_kind_of_plug_in():
    assert set(EXAMPLES) == {
        "loss", "miner", "relevance", "trunk", "sampler", "task", "evaluator",
        "data source", "descriptor", "command",
    }  # fmt: skip
    for title, (code, _) in EXAMPLES.items():
        assert sum(bool(line.strip()) for line in code.splitlines()) <= 20, title


@pytest.mark.parametrize("title", TRAINED)
def test_an_example_trains(title, images, tmp_path):
    code, flags = EXAMPLES[title]
    path = tmp_path / "mine.py"
    path.write_text(code)
    config = shrunk.shrink(
        load_config(BASE), num_steps=2, **{"schedule.warmup_steps": 1}
    )
    config.data.dir = str(images)
    if title == "data source":
        flat = tmp_path / "flat"
        flat.mkdir()
        for image in images.rglob("*.png"):
            (flat / f"{image.parent.name}-{image.name}").write_bytes(image.read_bytes())
        config.data.dir = str(flat)
    words = shlex.split(flags)
    plugins = load_config(BASE, [f"--config.plugins=({str(path)!r},)"]).plugins
    config.plugins = plugins
    apply_overrides(config, parse_words(words))
    loop.train(config, tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["plugins"] == [str(path)]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    if title == "evaluator":
        assert results["test"]["norms"]["mean_norm"]["model"] == pytest.approx(1.0)
    if title == "task":
        assert results["held out"]["patient_ranking"]["patience"]["model"] == 9.0
    assert 0 <= results["test"]["retrieval"]["recall@1"]["model"] <= 1


def test_the_example_of_a_descriptor_describes(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLES["descriptor"][0])
    load_config(BASE, [f"--config.plugins=({str(path)!r},)"])
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    rows = compute(["mean_color"], images)["mean_color"]
    np.testing.assert_allclose(rows, images.mean(axis=(1, 2)), rtol=1e-6)


def test_the_example_of_a_command_runs(images, tmp_path, monkeypatch, capsys):
    (tmp_path / "count.py").write_text(EXAMPLES["command"][0])
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    main(["count", str(images)])
    assert capsys.readouterr().out == "160 images\n"
