"""Plans and runs: their settings, and what is read of their results."""

import ml_collections
import pytest

from tools import plans, runs


@pytest.fixture
def config():
    config = ml_collections.ConfigDict()
    config.steps = 5
    config.data = dict(dir="", levels=("a",))
    return config


def test_settings_change_a_copy_of_the_config(config):
    values = ["steps=7", "data.dir=some/where", "data.levels=()"]
    found = plans.changed(config, values)
    assert (found.steps, found.data.dir, found.data.levels) == (7, "some/where", ())
    assert (config.steps, config.data.dir) == (5, "")


@pytest.mark.parametrize("value", ["stesp=7", "steps=many", "data.levels=3"])
def test_settings_that_cannot_be_are_told(config, value):
    with pytest.raises(SystemExit, match=f"error: --set={value}"):
        plans.changed(config, [value])


def test_a_misspelt_name_is_told_in_a_line(config):
    with pytest.raises(SystemExit) as found:
        plans.changed(config, ["stesp=7"])
    told = str(found.value)
    assert told == (
        'error: --set=stesp=7: there is no stesp. Did you mean "steps" instead of '
        '"stesp"?'
    )
    with pytest.raises(SystemExit, match=r"there is no zzzzz\. see configs"):
        plans.changed(config, ["zzzzz=7"])


def test_a_value_is_the_models_on_a_split():
    results = {"test": {"triplets": {"precision": {"model": 0.9, "pixels": 0.7}}}}
    assert runs.value(results, "triplets/precision") == 0.9
    with pytest.raises(KeyError):
        runs.value(results, "triplets/precision", split="validation")
