"""`deeprank configs`: the list, and every key of a config with its meaning."""

import json
import shlex
import subprocess
import sys

import pytest

from deeprank_jax.cli import configs
from deeprank_jax.cli.__main__ import main
from deeprank_jax.config import describe, list_configs, load_config
from deeprank_jax.config.describe import read_comments
from deeprank_jax.config.overrides import OPEN_SECTIONS, PLUGIN_SECTIONS

BASE = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.seed = 0  # Seed.
    # Kind of task, on
    # two lines.
    config.task = dict(name="ranking")
    config.data = _data()
    config.steps = 5
    return config

def _data():
    data = ConfigDict(dict(name="x"))
    # Folder,
    data.dir = ""  # or list.
    data.augment = dict(
        shift=4,  # Pixels.
        flip=True,
    )
    return data
"""


def test_comments_stand_above_or_beside_their_keys():
    assert read_comments(BASE) == {
        "seed": "Seed.",
        "task": "Kind of task, on two lines.",
        "data": "",
        "data.dir": "Folder, or list.",
        "data.augment": "",
        "data.augment.shift": "Pixels.",
        "data.augment.flip": "",
        "steps": "",
    }


@pytest.mark.parametrize("name", ["emoji", "folder", "pretrain_emoji"])
def test_every_key_is_a_flag_that_gives_the_same_config(name):
    config = load_config(name)
    lines = describe.describe_config(name).splitlines()
    words = [shlex.split(x)[0] for x in lines if x.startswith("--config.")]
    assert load_config("folder", words).to_dict() == config.to_dict()
    assert all(len(line) <= 90 for line in lines if line.startswith("#"))


def test_every_key_of_the_base_has_a_section_and_nearly_all_a_meaning():
    keys = describe.read_keys(load_config("emoji"))
    names = [key.name for key in keys]
    assert names[0] == "seed"
    assert len(names) == len(set(names))
    without = [key.name for key in keys if not key.meaning]
    assert len(without) < len(keys) / 5, without
    sections = [key.section for key in keys]
    assert len(list(dict.fromkeys(sections))) == sum(
        a != b for a, b in zip(sections, [None, *sections[:-1]], strict=True)
    )


def test_the_list_has_every_config_with_a_line(capsys):
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(list_configs())
    assert any(line.startswith("emoji ") and "The demo" in line for line in lines)
    main(["configs", "--json"])
    assert json.loads(capsys.readouterr().out) == list_configs()


def test_one_config_is_described(capsys):
    main(["configs", "emoji"])
    text = capsys.readouterr().out
    assert text.startswith("# The demo: ")
    assert "\n--config.num_steps=1000\n" in text
    main(["configs", "emoji", "--json"])
    keys = json.loads(capsys.readouterr().out)
    assert keys["batch_size"]["value"] == 48
    assert "groups per step" in keys["batch_size"]["meaning"]


def test_an_unknown_config_gets_the_nearest_name(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["configs", "emojy"])
    assert "did you mean 'emoji'" in str(exit_info.value)


def test_the_list_does_not_import_jax():
    code = (
        "import sys; from deeprank_jax.cli.__main__ import main; main(['configs']); "
        "assert not {'jax', 'flax', 'tensorflow_datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_section_with_kinds_has_its_registry():
    assert configs.REGISTRIES.keys() == {*PLUGIN_SECTIONS, *OPEN_SECTIONS}
    for section, registry in configs._registries().items():
        assert registry.section == f"config.{section}"


def test_options_of_other_kinds_are_described_by_these():
    keys = describe.read_keys(load_config("emoji"), configs._registries())
    meanings = {key.name: key.meaning for key in keys}
    assert meanings["model.trunk.widths"]
    assert meanings["relevance.levels"]
    assert meanings["evaluation.evaluators.triplets.k"]
