"""The loss of nested prefixes: values, memory, gradients and bad input."""

import json

from helpers import shrunk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.config import apply_overrides
from deeprank_jax.configs import base
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses.memory import create_memory, remember
from deeprank_jax.relevance import Hierarchy
from deeprank_jax.training import loop

AT_START = dict(step=0, key=jax.random.key(0))
TERMS = {"multi_similarity": {}, "supcon": {"weight": 0.5}}


def create(section):
    return losses.create_loss(
        section,
        relevance_fn=Hierarchy((0.1, 1.0)).pairwise,
        min_relevance_gap=0.05,
        axis_name=None,
        positives_per_anchor=1,
        negatives_per_anchor=1,
    )


def matryoshka(dims=(2, 5), terms=TERMS):
    return create({"name": "matryoshka", "dims": dims, "terms": terms})


def sum_of(terms=TERMS):
    return create({"name": "weighted_sum", "terms": terms})


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def random_batch(size=6, dim=8):
    rng = np.random.default_rng(0)
    outputs = unit(rng.normal(size=(size, 3, dim)))
    coarse = rng.integers(0, 3, (size, 3))
    labels = np.stack([coarse, coarse * 2 + rng.integers(0, 2, (size, 3))], axis=-1)
    labels[:, 1] = labels[:, 0]
    batch = {"attributes": jnp.asarray(labels, jnp.int32)}
    return jnp.asarray(outputs, jnp.float32), batch


def prefix(rows, dim):
    return jnp.asarray(unit(np.asarray(rows)[..., :dim]))


def test_it_is_the_sum_over_the_prefixes_and_the_whole():
    outputs, batch = random_batch()
    expected = sum(
        sum_of()(prefix(outputs, dim), batch, **AT_START) for dim in (2, 5, 8)
    )
    values = matryoshka()(outputs, batch, **AT_START)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert matryoshka(terms={"supcon": {}}).describe() == (
        "1 * (supervised contrastive, temperature 0.1), of the first 2, 5 numbers and "
        "of all"
    )


def test_a_prefix_as_long_as_the_embedding_counts_once():
    outputs, batch = random_batch()
    values = matryoshka((8, 16))(outputs, batch, **AT_START)
    np.testing.assert_allclose(values, sum_of()(outputs, batch, **AT_START))


def test_the_memory_is_shortened_too():
    outputs, batch = random_batch()
    memory = create_memory(18, 8, np.asarray(batch["attributes"])[0])
    memory = remember(memory, outputs[::-1], batch["attributes"][::-1], None)
    terms = {"multi_similarity": {"memory_size": 18}}
    expected = 0.0
    for dim in (3, 8):
        of_prefix = memory | {"embeddings": prefix(memory["embeddings"], dim)}
        expected += sum_of(terms)(
            prefix(outputs, dim), batch | {"memory": of_prefix}, **AT_START
        )
    values = matryoshka((3,), terms)(outputs, batch | {"memory": memory}, **AT_START)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert losses.memory_size({"name": "matryoshka", "terms": terms}) == 18


def test_gradients_are_finite_where_a_prefix_is_zero():
    outputs, batch = random_batch()
    outputs = outputs.at[0, 0, :2].set(0.0)
    gradient = jax.grad(lambda x: matryoshka()(x, batch, **AT_START).sum())(outputs)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.abs(gradient[1:]).sum(axis=(0, 1)) > 0)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ((), r"config\.loss\.dims must be lengths of at least 1 that ascend"),
        ((0, 4), r"config\.loss\.dims must be lengths of at least 1 that ascend"),
        ((4, 4), r"config\.loss\.dims must be lengths of at least 1 that ascend"),
        ((2.5, 4), r"config\.loss\.dims must be whole numbers"),
    ],
)
def test_lengths_that_do_not_ascend_are_refused(dims, message):
    with pytest.raises(ConfigError, match=message):
        matryoshka(dims)


def test_without_a_term_it_is_refused():
    with pytest.raises(ConfigError, match=r"config\.loss\.terms must name at least"):
        matryoshka(terms={})


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_run_with_memory_and_whitening_keeps_the_first_numbers(tmp_path):
    config = shrunk.shrink(base.get_config(), num_steps=4)
    apply_overrides(
        config,
        [
            ("loss.name", "multi_similarity"),
            ("loss.memory_size", "32"),
            ("model.whitening_power", "0.4"),
            ("model.embed_prefix", "3"),
        ],
    )
    config.data.dir = str(shrunk.write_images(tmp_path / "images"))
    loop.train(config, tmp_path / "run")
    with np.load(tmp_path / "run" / "whitening.npz") as fitted:
        assert fitted["matrix"].shape == (8, 8)
    with np.load(tmp_path / "run" / "test_embeddings.npz") as saved:
        rows = saved["embeddings"]
    assert rows.shape[1] == 3
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_run_trains_prefixes_and_measures_them(tmp_path):
    config = shrunk.shrink(base.get_config(), num_steps=4)
    apply_overrides(
        config,
        [
            ("loss.name", "matryoshka"),
            ("loss.dims", "(2, 4)"),
            ("loss.terms.multi_similarity.memory_size", "32"),
            ("evaluation.evaluators.prefixes.dims", "(2, 4)"),
        ],
    )
    config.data.dir = str(shrunk.write_images(tmp_path / "images"))
    report = loop.train(config, tmp_path / "run")
    assert "of the first 2, 4 numbers and of all" in report.read_text("utf-8")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    names = {"recall@1_2", "recall@1_4", "map@r_2", "map@r_4"}
    assert results["test"]["prefixes"].keys() == names
