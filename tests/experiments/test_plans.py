"""Plans: config files that say what is compared, and settings that change configs."""

import ml_collections
import pytest

from deeprank_jax.errors import ConfigError
from deeprank_jax.experiments import plans


@pytest.fixture
def config():
    config = ml_collections.ConfigDict()
    config.steps = 5
    config.data = dict(dir="", levels=("a",))
    return config


def test_settings_change_a_copy_of_the_config(config):
    values = ["steps=7", "data.dir=some/where", "data.levels=()"]
    found = plans.override(config, values)
    assert (found.steps, found.data.dir, found.data.levels) == (7, "some/where", ())
    assert (config.steps, config.data.dir) == (5, "")


@pytest.mark.parametrize("value", ["stesp=7", "steps=many", "data.levels=(1"])
def test_an_override_that_does_not_fit_names_its_key(config, value):
    with pytest.raises(ConfigError, match=f"config.{value.partition('=')[0]}"):
        plans.override(config, [value])


def test_a_plan_needs_its_names():
    assert plans.load_plan("ablation_sampling", ["ARMS"]).ARMS
    with pytest.raises(ConfigError, match=r"emoji\.py defines no ARMS"):
        plans.load_plan("emoji", ["ARMS"])


def test_pairs_are_of_arms(tmp_path):
    path = tmp_path / "plan.py"
    path.write_text(
        "get_config, ARMS, PAIRS = dict, {'one': {}, 'two': {}}, [('one', 'tow')]\n"
    )
    with pytest.raises(ConfigError, match=r"PAIRS has 'tow'.*did you mean 'two'"):
        plans.arm_pairs(plans.load_plan(path, ["ARMS"]))
    plan = plans.load_plan("ablation_graded", ["ARMS"])
    assert plans.arm_pairs(plan)[0] == ("rank_n_contrast", "supcon")
    assert plans.arm_pairs(plans.load_plan("ablation_sampling", ["ARMS"])) is None
