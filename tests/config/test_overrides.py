import pytest

from deeprank_jax.config import apply_overrides, load_config
from deeprank_jax.config.overrides import parse_words
from deeprank_jax.configs import base
from deeprank_jax.errors import ConfigError


def override(*words):
    config = base.get_config()
    config.lock()
    apply_overrides(config, parse_words(words))
    return config


@pytest.mark.parametrize(
    ("word", "read", "value"),
    [
        ("--config.batch_size=128", lambda c: c.batch_size, 128),
        ("--config.batch_size=1_000", lambda c: c.batch_size, 1000),
        (
            "--config.optimizer.learning_rate=1",
            lambda c: c.optimizer.learning_rate,
            1.0,
        ),
        ("--config.model.remat=TRUE", lambda c: c.model.remat, True),
        ("--config.model.remat=no", lambda c: c.model.remat, False),
        ("--config.data.dir=a b", lambda c: c.data.dir, "a b"),
        ("--config.evaluation.gains=(.1,1)", lambda c: c.evaluation.gains, (0.1, 1)),
        ("--config.evaluation.gains=1.0", lambda c: c.evaluation.gains, (1.0,)),
        ("--config.model.paths=()", lambda c: c.model.paths, ()),
        ("--config.triplets.category_level=0", lambda c: c.triplets.category_level, 0),
        (
            "--config.triplets.category_level=None",
            lambda c: c.triplets.category_level,
            None,
        ),
        ("--config.schedule.warmup_steps=5", lambda c: c.schedule.warmup_steps, 5),
        (
            "--config.model.paths=(dict(subsample=2, width=8),)",
            lambda c: [dict(path) for path in c.model.paths],
            [{"subsample": 2, "width": 8}],
        ),
    ],
)
def test_a_value_is_read_as_the_type_of_its_key(word, read, value):
    found = read(override(word))
    assert found == value
    assert type(found) is type(value)


def test_key_and_value_may_be_two_words():
    assert override("--config.batch_size", "32").batch_size == 32
    with pytest.raises(ConfigError, match=r"--config\.batch_size needs a value"):
        override("--config.batch_size")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.batchsize=1", r"config\.batchsize is not a key .*'batch_size'\?"),
        ("--config.data.dirr=1", r"config\.data\.dirr is not a key .*'data\.dir'\?"),
        ("--config.seed.x=1", r"config\.seed\.x is not a key"),
        ("--config.batch_size=1.5", "is not a whole number"),
        ("--config.model.remat=perhaps", "is not true or false"),
        ("--config.optimizer.learning_rate=nan", "is not a finite number"),
        ("--config.model.paths=(1,", "is not values in parentheses"),
        ("--config.data=x", r"is a section; give one of its keys, .*config\.data\.aug"),
        ("--config.loss=3", r"config\.loss=3 is neither a name nor dict\(name="),
        ("--batch_size=1", r"is not of the form --config\.KEY=VALUE"),
    ],
)
def test_an_override_that_does_not_fit_is_explained(word, message):
    with pytest.raises(ConfigError, match=message):
        override(word)


@pytest.mark.parametrize("spelling", ["loss", "loss.name"])
def test_a_new_name_drops_the_options_before_it(spelling):
    config = override(f"--config.{spelling}=triplet_soft_margin")
    assert config.loss.to_dict() == {"name": "triplet_soft_margin"}
    config = override(f"--config.{spelling}=triplet_hinge")
    assert config.loss.to_dict() == base.get_config().loss.to_dict()


def test_names_are_set_before_options_in_any_order():
    config = override(
        "--config.loss.miner.warmup_steps=5",
        "--config.loss.symmetric=true",
        "--config.loss.miner.name=batch_hard",
        "--config.loss.name=triplet_soft_margin",
    )
    assert config.loss.to_dict() == {
        "name": "triplet_soft_margin",
        "symmetric": True,
        "miner": {"name": "batch_hard", "warmup_steps": 5},
    }


def test_an_evaluator_is_added_by_its_name():
    config = override(
        "--config.evaluation.evaluators.clustering={}",
        "--config.evaluation.evaluators.mine=dict(k=3, name='x')",
        "--config.evaluation.evaluators.retrieval.ks=(1, 2)",
    )
    evaluators = config.evaluation.evaluators.to_dict()
    assert evaluators["clustering"] == {}
    assert evaluators["mine"] == {"k": 3, "name": "x"}
    assert evaluators["retrieval"] == {"ks": (1, 2)}


def test_a_trunk_of_another_name_takes_its_own_options():
    config = load_config("emoji", ["--config.model.trunk.name=resnet50"])
    assert config.model.trunk.to_dict() == {"name": "resnet50"}


def test_an_evaluator_is_removed_or_added_with_its_defaults():
    prefix = "--config.evaluation.evaluators"
    config = override(f"{prefix}.triplets=None", f"{prefix}.clustering=true")
    evaluators = config.evaluation.evaluators.to_dict()
    assert evaluators == {"retrieval": {"ks": (1, 5, 10)}, "clustering": {}}
    config = override(f"{prefix}=dict(retrieval=dict(ks=(3,)))")
    assert config.evaluation.evaluators.to_dict() == {"retrieval": {"ks": (3,)}}
    with pytest.raises(ConfigError, match=r"clustering needs options, .*; got 5"):
        override(f"{prefix}.clustering=5")


def test_plugins_need_no_quotes():
    assert override("--config.plugins=mine.py").plugins == ("mine.py",)
    assert override("--config.plugins=a.py, b.c").plugins == ("a.py", "b.c")
    assert override("--config.plugins=('a.py',)").plugins == ("a.py",)
