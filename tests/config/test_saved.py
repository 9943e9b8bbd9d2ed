import copy
import json

import pytest

from deeprank_jax import checksums, files
from deeprank_jax import config as config_lib
from deeprank_jax.configs import base, emoji
from deeprank_jax.errors import CheckpointError, ConfigError

# A config.json from before kinds and their options were sections.
OLD = {
    "seed": 0, "task": "ranking", "num_steps": 1000, "batch_size": 64,
    "accumulate_steps": 1, "init_from": "",
    "data": {
        "name": "folder", "dir": "", "levels": [], "image_feature": "image",
        "name_feature": "", "columns": [], "split_by": "dataset", "image_size": 64,
        "fit": "crop", "max_pixels": 50000000, "max_bad_share": 0.05,
        "cache_mib": 512, "workers": 2, "prefetch": 2,
        "augment": {
            "shift_pixels": 4, "flip": True, "color_jitter": 0.2, "zoom": 0.0,
            "rotate_degrees": 0.0,
        },
    },
    "relevance": {
        "name": "same_class", "levels": [], "weights": {}, "file": "", "kernel": "",
        "scale": 0.0,
    },
    "sampler": {
        "name": "reservoir", "file": "", "mode": "importance", "category_level": None,
        "capacity": 4096, "records_per_step": 256, "positive_cap": 1.0,
        "min_relevance_gap": 0.01, "out_of_class": 0.2,
    },
    "model": {
        "trunk": {"name": "convnet", "widths": [32, 64, 128, 256]},
        "embedding_dim": 64,
        "paths": [
            {"subsample": 2, "kernel": 8, "stride": 4, "width": 32, "pool": 3,
             "pool_stride": 2}
        ],
        "dtype": "float32", "batch_norm": "synchronized", "remat": False,
        "weights": "", "weights_layout": "",
    },
    "loss": {
        "margin": 0.2, "negatives": "semi_hard", "soft_margin": False,
        "warmup_steps": 0, "symmetric": False,
    },
    "classification": {"level": -1, "held_out": 0.1, "label_smoothing": 0.1},
    "optimizer": {
        "name": "adamw", "learning_rate": 0.001, "momentum": 0.9, "nesterov": True,
        "b1": 0.9, "b2": 0.999, "l2_penalty": 0.0, "decoupled_weight_decay": 0.0,
        "clip_norm": 0.0, "trunk_scale": 1.0,
    },
    "schedule": {"name": "cosine", "warmup_steps": 50},
    "log_every": 20, "eval_every": 250, "checkpoint_every": 250, "max_skipped": 20,
    "evaluation": {
        "batch_size": 256, "best_metric": "retrieval/recall@1",
        "retrieval": {"ks": [1, 5, 10]}, "gains": [], "max_compared": 50000,
        "triplets": {"num": 20000, "k": 30, "out_of_class": 0.2},
        "rated_triplets": "",
    },
}  # fmt: skip


def flatten(tree, prefix=""):
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def old(**changes):
    """Returns the old config with values by dotted key, `__` for a dot."""
    values = copy.deepcopy(OLD)
    for key, value in changes.items():
        *parents, name = key.split("__")
        section = values
        for parent in parents:
            section = section[parent]
        section[name] = value
    return values


def test_the_old_defaults_become_those_of_today():
    today = config_lib.flatten_config(config_lib.resolve_config(base.get_config()))
    assert flatten(config_lib.upgrade_config(OLD)) == today
    assert "task" in OLD
    assert OLD["task"] == "ranking"  # Left unchanged.


def test_a_config_of_today_is_returned_as_it_is():
    values = json.loads(emoji.get_config().to_json_best_effort())
    assert config_lib.upgrade_config(values) == values


@pytest.mark.parametrize(
    ("changes", "section", "expected"),
    [
        (
            dict(task="classification", classification__held_out=0.3),
            "task",
            {"name": "classification", "level": -1, "held_out": 0.3},
        ),
        (
            dict(task="classification"),
            "loss",
            {"name": "cross_entropy", "label_smoothing": 0.1},
        ),
        (
            dict(loss__soft_margin=True, loss__symmetric=True),
            "loss",
            {
                "name": "triplet_soft_margin",
                "symmetric": True,
                "miner": {"name": "semi_hard"},
            },
        ),
        (
            dict(loss__negatives="batch_hard", loss__warmup_steps=7, loss__margin=1.0),
            "loss",
            {
                "name": "triplet_hinge",
                "margin": 1.0,
                "symmetric": False,
                "miner": {"name": "batch_hard", "warmup_steps": 7},
            },
        ),
        (
            dict(sampler__name="file", sampler__file="t.csv"),
            "sampler",
            {"name": "file", "file": "t.csv"},
        ),
        (
            dict(sampler__category_level=0, sampler__positive_cap=2.0),
            "triplets",
            {"category_level": 0, "positive_cap": 2.0, "min_relevance_gap": 0.01},
        ),
        (
            dict(relevance__name="embedding", relevance__file="v.npz"),
            "relevance",
            {"name": "embedding", "file": "v.npz"},
        ),
    ],
)
def test_an_old_section_is_converted(changes, section, expected):
    assert config_lib.upgrade_config(old(**changes))[section] == expected


def test_an_old_dataset_is_converted():
    data = config_lib.upgrade_config(old(data__name="cars196", data__levels=["label"]))
    assert data["data"]["source"] == {
        "name": "tfds", "dataset": "cars196", "levels": ["label"],
        "image_feature": "image", "name_feature": "", "columns": [],
        "split_by": "dataset",
    }  # fmt: skip
    assert not {"name", "levels", "split_by"} & data["data"].keys()


def test_old_evaluation_is_converted_even_from_before_a_key_came():
    values = old(evaluation__rated_triplets="rated.csv")
    evaluators = config_lib.upgrade_config(values)["evaluation"]["evaluators"]
    assert evaluators["rated_triplets"] == {"file": "rated.csv", "k": 30}
    values = old()
    del values["evaluation"]["rated_triplets"], values["evaluation"]["max_compared"]
    evaluation = config_lib.upgrade_config(values)["evaluation"]
    assert evaluation["evaluators"].keys() == {"retrieval", "triplets"}
    assert evaluation["max_compared"] == 50_000


def test_a_run_of_before_is_read_and_is_the_same_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(OLD))
    config = config_lib.read_run_config(tmp_path)
    config_lib.check_config(config)
    now = config_lib.flatten_config(config)
    check = config_lib.check_same_run
    check(flatten(OLD), now, tmp_path, ended=True)
    with pytest.raises(CheckpointError, match=r"config\.seed was 1 and is 0 now"):
        check(flatten(old(seed=1)), now, tmp_path, ended=False)
    changed = flatten(old(loss__margin=0.5))
    check(changed, now, tmp_path, ended=False)  # May change until the end.
    with pytest.raises(CheckpointError, match=r"config\.loss\.margin was 0\.5"):
        check(changed, now, tmp_path, ended=True)


def test_a_folder_that_is_not_a_run_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"is not a run, since it has no config\.json"
    ):
        config_lib.read_run_config(tmp_path)
    for foreign in ("{}", "[1]", '{"evaluation": 3}'):
        (tmp_path / "config.json").write_text(foreign)
        with pytest.raises(ConfigError, match=r"config\.json is not the config of"):
            config_lib.read_run_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        config_lib.read_run_config(tmp_path)


def test_a_checkpoint_gives_back_the_absolute_path_of_the_data(tmp_path, monkeypatch):
    config = config_lib.resolve_config(base.get_config())
    config.data.dir = "photos"
    step = tmp_path / "checkpoints" / "8"
    files.create_folder(step / "run")
    values = {"config": config_lib.flatten_config(config)}
    files.write_json(step / "run" / "metadata", values)
    checksums.list_checksums(step / checksums.CHECKSUMS, ["run/metadata"])
    (tmp_path / "config.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    run_config = config_lib.read_run_config(tmp_path)
    assert config_lib.saved_values(run_config) == config_lib.saved_values(config)
    assert run_config.data.dir == str(tmp_path / "photos")


def test_a_run_keeps_the_warm_up_that_it_began_with(tmp_path):
    values = old(num_steps=100)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    config = base.get_config()
    config.num_steps = 100
    assert config_lib.resolve_config(config, path).schedule.warmup_steps == 50
    config.num_steps = 200
    assert config_lib.resolve_config(config, path).schedule.warmup_steps == 40
    missing = tmp_path / "none.json"
    assert config_lib.resolve_config(config, missing).schedule.warmup_steps == 40


def test_values_that_are_no_config_are_an_error_of_the_config():
    with pytest.raises(ConfigError, match=r"not those of a config .*evaluation"):
        config_lib.upgrade_config({"task": "ranking"})


def test_options_that_came_later_have_the_value_of_before():
    today = json.loads(config_lib.resolve_config(base.get_config()).to_json())
    before = copy.deepcopy(today)
    later = (
        "quarter_turns",
        "swap_colors",
        "grayscale",
        "crop_area",
        "cutout",
        "mixing",
        "blur",
    )
    for name in later:
        del before["data"]["augment"][name]
    for name in (
        "embed_shift",
        "embed_flip",
        "embed_prefix",
        "embedding_norm",
        "whitening_power",
        "ensemble",
    ):
        del before["model"][name]
    for name in ("min_positive_relevance", "positives_per_anchor"):
        del before["sampler"][name]
    assert config_lib.upgrade_config(before) == today
    changed = copy.deepcopy(today)
    changed["sampler"]["positives_per_anchor"] = 3
    assert config_lib.upgrade_config(changed) == changed
