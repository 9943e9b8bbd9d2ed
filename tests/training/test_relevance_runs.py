"""Every kind of relevance, and every sampler, trains a run from data to report."""

import csv
import importlib.util
import json

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax import data, losses
from deeprank_jax.config import apply_overrides
from deeprank_jax.configs import base
from deeprank_jax.errors import ConfigError
from deeprank_jax.relevance import register, vectors
from deeprank_jax.sampling import triplet_file
from deeprank_jax.training import experiment, loop
from deeprank_jax.training.tasks import ranking

OWN = """
from deeprank_jax.configs import base
from deeprank_jax.relevance import register

@register("near_number")
def near_number(a, b):
    xp = a.__array_namespace__()
    return xp.exp(-1.0 * xp.abs(a[..., -1] - b[..., -1]))

def get_config():
    config = base.get_config()
    config.relevance.name = "near_number"
    return config
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for coarse in ("warm", "cold"):
        shrunk.write_images(root / coarse, num_classes=4, num_images=12)
    return root


@pytest.fixture(scope="module")
def names(images):
    splits = data.create_records(create_config(images).data)
    return {
        name: [records.describe(i) for i in range(len(records))]
        for name, records in splits.items()
    }


def create_config(images, module=base):
    config = shrunk.shrink(module.get_config(), num_steps=4)
    config.data.dir = str(images)
    config.triplets.category_level = 0
    return config


def write_table(path, names):
    """Images of one number in their class are the more relevant, the nearer these."""
    everything = [name for split in names.values() for name in split]
    number = [int(name.rsplit("/", 1)[1].split(".")[0]) for name in everything]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id_a", "id_b", "relevance"))
        for i, a in enumerate(everything):
            for j, b in enumerate(everything[:i]):
                if a.split("/")[0] == b.split("/")[0]:
                    writer.writerow((a, b, 2.0 ** -abs(number[i] - number[j])))


def write_vectors(path, names):
    everything = [name for split in names.values() for name in split]
    values = np.random.default_rng(0).normal(size=(len(everything), 5))
    vectors.write_vectors(path, everything, values.astype(np.float32), {})


@pytest.mark.parametrize("kind", ["attributes", "embedding", "table"])
@pytest.mark.parametrize("mode", ["importance", "uniform"])
def test_a_kind_trains_to_its_report(kind, mode, images, names, tmp_path):
    config = create_config(images)
    config.sampler.mode = mode
    if kind == "attributes":
        options = dict(weights={"level_1": 0.1, "level_2": 1.0})
    elif kind == "embedding":
        options = dict(file=str(tmp_path / "vectors.parquet"), scale=10.0)
        write_vectors(options["file"], names)
    else:
        options = dict(file=str(tmp_path / "table.csv"))
        write_table(tmp_path / "table.csv", names)
    config.relevance = dict(name=kind, **options)
    report = loop.train(config, tmp_path / "run")
    assert "<h2>Sampler</h2>" in report.read_text()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 0 < results["test"]["retrieval"]["ndcg@5"]["pixels"] < 1
    assert results["test"]["triplets"]["num_triplets"]["model"] == 50


def test_a_relevance_of_ones_own_is_registered_in_the_config_file(images, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    spec = importlib.util.spec_from_file_location("mine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loop.train(create_config(images, module), tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["relevance"]["name"] == "near_number"


def test_a_file_of_triplets_trains_and_goes_on(images, tmp_path):
    config = create_config(images)
    records = data.create_records(config.data)["train"]
    path = tmp_path / "triplets.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("anchor", "positive", "negative"))
        for _ in range(40):
            row = rng.choice(len(records), 3, replace=False)
            writer.writerow([records.describe(int(i)) for i in row])
    config.sampler = dict(name="file", file=str(path))
    config.loss.miner = dict(name="sampled")
    loop.train(config, tmp_path / "run")
    rows = {tuple(row) for row in triplet_file.read_triplets(path, records).indices}
    assert len(rows) > 30
    with path.open("a") as file:
        file.write(",".join(records.describe(i) for i in (5, 4, 3)) + "\n")
    with pytest.raises(Exception, match="sampler's triplets"):
        loop.train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "file"}, r"needs config\.sampler\.file"),
        ({"sampler.file": "x.csv"}, r"config\.sampler\.file"),
        ({"sampler": "best"}, r"config\.sampler\.name='best'"),
        ({"sampler.mode": "best"}, r"config\.sampler\.mode"),
        ({"relevance.name": "embedding"}, "needs config.relevance.file"),
        (
            {
                "relevance.name": "attributes",
                "relevance.weights": {"level_1": 1.0},
                "triplets.category_level": 9,
            },
            "category_level=9 is not one of the records' 2 levels",
        ),
        (
            {"relevance.name": "table", "relevance.file": "absent.csv"},
            "absent.csv",
        ),
    ],
)
def test_what_cannot_be_is_said_before_training(changes, message, images, tmp_path):
    config = create_config(images)
    apply_overrides(
        config,
        [(key, x if isinstance(x, str) else repr(x)) for key, x in changes.items()],
    )
    with pytest.raises(ValueError, match=message):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_options_of_ones_own_relevance_reach_it(images):
    """Also those that are False or 0."""
    given = []

    @register("optional")
    class Optional:
        def __init__(self, flip=True, power=2.0):
            given.append((flip, power))

        def attributes(self, splits):
            return [records.labels for records in splits]

        def pairwise(self, a, b):
            return (a[..., -1] == b[..., -1]) * 1.0

    config = create_config(images)
    config.relevance = dict(name="optional", flip=False, power=0.0)
    experiment.create_run_relevance(config)
    assert given == [(False, 0.0)]


def test_a_relevance_that_cannot_be_compiled(images):
    @register("of_numpy")
    def of_numpy(a, b):
        return np.exp(-np.abs(np.asarray(a) - np.asarray(b)).sum(-1))

    @register("of_a_mask")
    def of_a_mask(a, b):
        same = (a == b).all(-1)
        return same[same] * 1.0

    config = create_config(images)
    attributes = np.zeros((4, 2), np.int32)
    for name in ("of_numpy", "of_a_mask"):
        config.relevance.name = name
        kind = experiment.create_run_relevance(config)
        with pytest.raises(ValueError, match=rf"name='{name}' cannot be compiled"):
            ranking.check_compiles(config, kind, attributes)
    config.loss.miner = dict(name="sampled")
    ranking.check_compiles(config, kind, attributes)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda outputs: outputs.sum(), r"gave the shape \(\) for 2 groups"),
        (lambda outputs: outputs[:, 0, 0], None),
    ],
    ids=["scalar", "one per triplet"],
)
def test_a_loss_of_one_s_own_returns_one_value_per_triplet(images, result, message):
    @losses.register_loss("mine")
    class Mine:
        outputs = "embeddings"

        def __call__(self, outputs, batch, *, step, key):
            return result(outputs)

        def describe(self):
            return "mine"

    config = create_config(images)
    config.loss = dict(name="mine")
    kind = experiment.create_run_relevance(config)
    check = lambda: ranking.check_compiles(config, kind, np.zeros((4, 2), np.int32))
    if message is None:
        check()
        return
    with pytest.raises(ConfigError, match=message):
        check()


def test_an_error_of_a_loss_is_not_one_of_the_relevance(images):
    @losses.register_loss("broken")
    class Broken:
        outputs = "embeddings"

        def __call__(self, outputs):
            return outputs[:, 0, 0]

        def describe(self):
            return "broken"

    config = create_config(images)
    config.loss = dict(name="broken")
    kind = experiment.create_run_relevance(config)
    with pytest.raises(TypeError, match="__call__"):
        ranking.check_compiles(config, kind, np.zeros((4, 2), np.int32))
