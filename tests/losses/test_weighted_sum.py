"""Weighted sums of losses: values, memory of each term, and bad input."""

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
from deeprank_jax.losses.rank_n_contrast import rank_n_contrast_loss
from deeprank_jax.relevance import Hierarchy
from deeprank_jax.training import loop

pytestmark = pytest.mark.usefixtures("without_pictures")

AT_START = dict(step=0, key=jax.random.key(0))


def create(section, gap=0.05):
    return losses.create_loss(
        section,
        relevance_fn=Hierarchy((0.1, 1.0)).pairwise,
        min_relevance_gap=gap,
        axis_name=None,
        positives_per_anchor=1,
        negatives_per_anchor=1,
    )


def sum_of(**terms):
    return create({"name": "weighted_sum", "terms": terms})


def random_batch(size=6):
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(size, 3, 4)).astype(np.float32)
    outputs /= np.linalg.norm(outputs, axis=-1, keepdims=True)
    coarse = rng.integers(0, 3, (size, 3))
    labels = np.stack([coarse, coarse * 2 + rng.integers(0, 2, (size, 3))], axis=-1)
    labels[:, 1] = labels[:, 0]
    return jnp.asarray(outputs), {"attributes": jnp.asarray(labels, jnp.int32)}


def test_it_is_the_sum_of_the_weighted_terms():
    outputs, batch = random_batch()
    loss = sum_of(
        multi_similarity={"alpha": 3.0},
        rank_n_contrast={"weight": 0.25, "temperature": 0.3},
        triplet_hinge={"weight": 2, "miner": {"name": "sampled"}},
    )
    expected = (
        create({"name": "multi_similarity", "alpha": 3.0})(outputs, batch, **AT_START)
        + 0.25
        * create({"name": "rank_n_contrast", "temperature": 0.3})(
            outputs, batch, **AT_START
        )
        + 2
        * create({"name": "triplet_hinge", "miner": {"name": "sampled"}})(
            outputs, batch, **AT_START
        )
    )
    np.testing.assert_allclose(loss(outputs, batch, **AT_START), expected, rtol=1e-6)
    assert loss.describe() == (
        "1 * (multi-similarity, 3 and 50) + 0.25 * (Rank-N-Contrast, temperature 0.3) "
        "+ 2 * (hinge, margin 0.2)"
    )


def test_each_term_has_a_memory_of_its_own_size():
    outputs, batch = random_batch()
    memory = create_memory(18, 4, np.asarray(batch["attributes"])[0])
    batch["memory"] = remember(memory, outputs[::-1], batch["attributes"][::-1], None)
    loss = sum_of(multi_similarity={"memory_size": 18}, supcon={"weight": 0.5})
    without = {key: x for key, x in batch.items() if key != "memory"}
    expected = create({"name": "multi_similarity", "memory_size": 18})(
        outputs, batch, **AT_START
    ) + 0.5 * create({"name": "supcon"})(outputs, without, **AT_START)
    np.testing.assert_allclose(loss(outputs, batch, **AT_START), expected, rtol=1e-6)
    section = {"terms": {"supcon": {}, "multi_similarity": {"memory_size": 18}}}
    assert losses.memory_size(section) == 18
    assert losses.memory_size({"memory_size": 7}) == 7
    assert losses.memory_size({}) == 0


def test_relevances_are_weighted_by_their_power():
    rng = np.random.default_rng(1)
    similarities = rng.uniform(-1, 1, 9)
    relevance = rng.choice([0.0, 0.01, 0.1, 1.0], 9)
    is_other = np.arange(9) != 4
    for power in (0.5, 1.0):
        total, weights = 0.0, 0.0
        for j in np.flatnonzero(is_other & (relevance > 0)):
            rivals = is_other & (relevance <= relevance[j])
            logits = similarities / 0.2
            log_p = logits[j] - np.log(np.exp(logits[rivals]).sum())
            total -= relevance[j] ** power * log_p
            weights += relevance[j] ** power
        value = rank_n_contrast_loss(
            jnp.asarray(similarities, jnp.float32),
            jnp.asarray(relevance, jnp.float32),
            jnp.asarray(is_other),
            temperature=0.2,
            relevance_power=power,
        )
        np.testing.assert_allclose(value, total / weights, rtol=1e-5)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, r"config\.loss\.terms must name at least one loss"),
        ({"nonsense": {}}, r"config\.loss\.terms\.nonsense\.name='nonsense' is not"),
        ({"supcon": 0.5}, r"config\.loss\.terms\.supcon=0\.5 needs options, e\.g\."),
        ({"supcon": {"margin": 1}}, r"config\.loss\.terms\.supcon\.margin is not an"),
        ({"supcon": {"temperature": 0.0}}, r"config\.loss\.terms\.supcon\.temperature"),
        (
            {"supcon": {"weight": 0}},
            r"config\.loss\.terms\.supcon\.weight must be abov",
        ),
        ({"cross_entropy": {}}, r"config\.loss\.terms\.cross_entropy takes logits"),
    ],
)
def test_what_cannot_be_is_refused(terms, message):
    with pytest.raises(ConfigError, match=message):
        sum_of(**terms)


def test_a_power_of_0_is_refused():
    with pytest.raises(ConfigError, match=r"config\.loss\.relevance_power must be"):
        create({"name": "rank_n_contrast", "relevance_power": 0.0})


@pytest.mark.slow
def test_a_run_trains_on_a_sum_given_by_flags(tmp_path):
    config = shrunk.shrink(base.get_config(), num_steps=4)
    apply_overrides(
        config,
        [
            ("loss.name", "weighted_sum"),
            ("loss.terms.multi_similarity.memory_size", "32"),
            ("loss.terms.rank_n_contrast.weight", "0.4"),
        ],
    )
    config.data.dir = str(shrunk.write_images(tmp_path / "images"))
    report = loop.train(config, tmp_path / "run")
    assert "0.4 * (Rank-N-Contrast" in report.read_text(encoding="utf-8")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["loss"]["terms"]["rank_n_contrast"] == {"weight": 0.4}
