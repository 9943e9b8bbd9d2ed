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


@pytest.mark.parametrize("value", ["stesp=7", "steps=many", "data.levels=3"])
def test_settings_that_cannot_be_are_told(config, value):
    with pytest.raises(ConfigError, match=f"^{value}: "):
        plans.override(config, [value])


def test_a_misspelt_name_is_told_in_a_line(config):
    with pytest.raises(ConfigError) as found:
        plans.override(config, ["stesp=7"])
    told = str(found.value)
    assert told == (
        'stesp=7: there is no stesp. Did you mean "steps" instead of "stesp"?'
    )
    with pytest.raises(ConfigError, match=r"there is no zzzzz\. see configs"):
        plans.override(config, ["zzzzz=7"])
