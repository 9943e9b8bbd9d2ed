import pytest

from deeprank_jax import config as config_lib
from deeprank_jax.configs import base
from deeprank_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "value", "bounds"),
    [
        ("data.augment.color_jitter", 1.5, "must be at most 1"),
        ("data.augment.color_jitter", -0.5, "must be at least 0"),
        ("data.augment.crop_area", 0.0, "must be above 0; 1 turns it off"),
        ("data.augment.crop_area", 1.5, "must be at most 1"),
        ("data.augment.cutout", 1.5, "must be at most 1"),
        ("data.augment.quarter_turns", 1.5, "must be at most 1"),
        ("data.augment.zoom", float("nan"), "must be at least 0"),
        ("optimizer.learning_rate", 0.0, "above 0 and finite"),
        ("optimizer.learning_rate", float("nan"), "above 0 and finite"),
        ("batch_size", 0, "must be at least 1"),
        ("schedule.warmup_steps", -1, "must be at least 0"),
        ("data.cache_mib", -1, "must be at least 0"),
        ("data.workers", 0, "must be at least 1"),
        ("model.paths", (1,), "give dicts"),
        ("model.ensemble", (1,), "model.ensemble=.* holds 1; give dicts"),
    ],
)
def test_a_value_out_of_its_range_is_refused(key, value, bounds):
    config = base.get_config()
    config_lib.check_config(config)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=bounds) as refused:
        config_lib.check_config(config)
    assert f"config.{key}" in str(refused.value)
    assert str(value) in str(refused.value)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_ends_of_a_range_are_allowed(value):
    config = base.get_config()
    config.data.augment.color_jitter = value
    config_lib.check_config(config)


def test_only_one_start_of_the_network_may_be_given():
    config = base.get_config()
    config.init_from, config.model.weights = "runs/x", "package"
    with pytest.raises(ConfigError, match="both name a network to start from"):
        config_lib.check_config(config)


def test_values_for_each_level_fit_the_records():
    config = base.get_config()
    config.relevance = dict(name="hierarchy", levels=(0.1, 1.0))
    config_lib.check_levels(config, ("coarse", "fine"))
    with pytest.raises(
        ConfigError, match=r"relevance\.levels has 2 values, but .* 1 l"
    ):
        config_lib.check_levels(config, ("fine",))
    config.triplets.category_level = 2
    with pytest.raises(
        ConfigError, match="category_level=2 is not one of the records'"
    ):
        config_lib.check_levels(config, ("coarse", "fine"))


@pytest.mark.parametrize(("num_steps", "warmup"), [(1000, 50), (100, 20), (3, 0)])
def test_the_warm_up_is_a_fifth_of_a_short_run(num_steps, warmup):
    config = base.get_config()
    config.num_steps = num_steps
    config.lock()
    assert config_lib.resolve_config(config).schedule.warmup_steps == warmup
    assert config.schedule.warmup_steps is None
    config.schedule.warmup_steps = 7
    assert config_lib.resolve_config(config).schedule.warmup_steps == 7
