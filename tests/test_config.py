import pytest

from configs import base
from deeprank_jax import config as config_lib


@pytest.mark.parametrize(
    ("key", "value", "bounds"),
    [
        ("data.augment.color_jitter", 1.5, "must be at most 1"),
        ("data.augment.color_jitter", -0.5, "must be at least 0"),
        ("classification.label_smoothing", 1.0, "must be at least 0 and below 1"),
        ("classification.label_smoothing", -0.1, "must be at least 0 and below 1"),
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
