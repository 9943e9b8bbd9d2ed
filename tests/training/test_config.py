from deeprank_jax.configs import base
import pytest

from deeprank_jax import config as config_lib


@pytest.mark.parametrize(
    ("key", "value", "bounds"),
    [
        ("data.augment.color_jitter", 1.5, "must be at most 1"),
        ("data.augment.color_jitter", -0.5, "must be at least 0"),
        ("classification.label_smoothing", 1.0, "must be at least 0 and below 1"),
        ("classification.label_smoothing", -0.1, "must be at least 0 and below 1"),
        ("sampler.mode", "importanse", "must be 'importance' or 'uniform'"),
        ("sampler.out_of_class", 1.01, r"must be in \[0, 1\]"),
        ("sampler.out_of_class", -0.01, r"must be in \[0, 1\]"),
        ("optimizer.learning_rate", 0.0, "above 0 and finite"),
        ("optimizer.learning_rate", float("nan"), "above 0 and finite"),
    ],
)
def test_what_is_out_of_its_range_is_refused(key, value, bounds):
    config = base.get_config()
    config_lib.check_config(config)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=bounds) as refused:
        config_lib.check_config(config)
    assert f"config.{key}" in str(refused.value)
    assert str(value) in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.augment.color_jitter", 0.0),
        ("data.augment.color_jitter", 1.0),
        ("classification.label_smoothing", 0.0),
        ("sampler.out_of_class", 0.0),
        ("sampler.out_of_class", 1.0),
    ],
)
def test_the_ends_of_a_range_are_taken(key, value):
    config = base.get_config()
    config.update_from_flattened_dict({key: value})
    config_lib.check_config(config)


def test_selecting_by_what_people_rated_needs_a_file_of_it():
    config = base.get_config()
    for metric in ("rated/precision", "rated/score_at_30_share"):
        config.evaluation.best_metric = metric
        config.evaluation.rated_triplets = ""
        with pytest.raises(ValueError, match=f"'{metric}' is not measured"):
            config_lib.check_config(config)
        config.evaluation.rated_triplets = "rated.csv"
        config_lib.check_config(config)


def test_a_run_from_before_a_key_came_is_read(tmp_path):
    config = base.get_config()
    del config.evaluation.rated_triplets
    del config.evaluation.max_compared
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    found = config_lib.read_run_config(tmp_path)
    assert found.evaluation.rated_triplets == ""
    assert found.num_steps == base.get_config().num_steps
    config_lib.check_config(found)
    # As a run of today has them, unless it says so.
    assert config_lib._LATER == {
        f"evaluation.{name}": base.get_config().evaluation[name]
        for name in ("rated_triplets", "max_compared")
    }


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"is no run, it has no config\.json"):
        config_lib.read_run_config(tmp_path)
    for foreign in ("{}", "[1]", '{"evaluation": 3}'):
        (tmp_path / "config.json").write_text(foreign)
        with pytest.raises(ValueError, match=r"config\.json is not the config of"):
            config_lib.read_run_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        config_lib.read_run_config(tmp_path)
