"""Losses on all pairs of a batch: published formulas, roles by relevance, devices."""

from helpers.ranking_losses import AT_START, on_four_devices
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.losses import batch_mining
from deeprank_jax.relevance import Hierarchy

CLASSES = Hierarchy((1.0,))
GRADED = Hierarchy((0.1, 0.4, 1.0))
GAP = 0.2


def create(name, relevance, *, axis_name=None, positives=2, **options):
    """Returns a loss as one compiled program."""
    loss = losses.create_loss(
        {"name": name, **options},
        relevance_fn=relevance.pairwise,
        min_relevance_gap=GAP,
        axis_name=axis_name,
        positives_per_anchor=positives,
        negatives_per_anchor=0,
    )
    return jax.jit(loss)


def random_groups(seed, size=6, num_images=3, dim=5):
    """Returns groups of the same coarse label whose fine labels differ now and then."""
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(size, num_images, dim)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    fine = rng.integers(0, 4, (size, 1)) * 2 + rng.integers(0, 2, (size, num_images))
    labels = np.stack([fine // 4, fine // 2, fine], axis=-1).astype(np.int32)
    return jnp.asarray(embeddings), labels


def multi_similarity(of_positives, of_negatives):
    """The official formula and miner of one anchor: alpha 2, beta 50, base .5."""
    kept_p = [p for p in of_positives if p - 0.1 < max(of_negatives)]
    kept_n = [n for n in of_negatives if n + 0.1 > min(of_positives)]
    if not kept_p or not kept_n:
        return 0.0
    attract = np.log(1 + sum(np.exp(-2 * (p - 0.5)) for p in kept_p)) / 2
    return attract + np.log(1 + sum(np.exp(50 * (n - 0.5)) for n in kept_n)) / 50


def supcon(of_positives, of_negatives):
    """Equation (2) of the paper for one anchor, at temperature .1."""
    total = sum(np.exp(s / 0.1) for s in [*of_positives, *of_negatives])
    return -np.mean([np.log(np.exp(p / 0.1) / total) for p in of_positives])


def contrastive(of_positives, of_negatives):
    """Hadsell's formula at margin .7, of the negatives within it."""
    distance = lambda s: np.sqrt(2 - 2 * s)
    near = [distance(n) for n in of_negatives if distance(n) < 0.7]
    pushed = np.mean([(0.7 - d) ** 2 / 2 for d in near]) if near else 0.0
    return np.mean([distance(p) ** 2 / 2 for p in of_positives]) + pushed


def circle(of_positives, of_negatives):
    """Equation (6) of the paper with its weights: scale 80, margin .4."""
    total = sum(
        np.exp(80 * (max(0, n + 0.4) * (n - 0.4) - max(0, 1.4 - p) * (p - 0.6)))
        for n in of_negatives
        for p in of_positives
    )
    return np.log(1 + total)


def fast_ap(of_positives, of_negatives):
    """The paper's sum over 11 bins of the squared distance."""
    in_bin = lambda s, q: max(0.0, 1 - abs((2 - 2 * s) / 0.4 - q))
    seen_p = seen = average = 0.0
    for q in range(11):
        here = sum(in_bin(p, q) for p in of_positives)
        seen_p += here
        seen += here + sum(in_bin(n, q) for n in of_negatives)
        average += here * seen_p / seen if seen else 0.0
    return 1 - average / len(of_positives)


ORACLES = {
    "contrastive": contrastive,
    "multi_similarity": multi_similarity,
    "supcon": supcon,
    "circle": circle,
    "fast_ap": fast_ap,
}
# By roles; and with it the one that compares relevances themselves.
by_role = pytest.mark.parametrize("name", ORACLES)
each_loss = pytest.mark.parametrize("name", [*ORACLES, "rank_n_contrast"])


@each_loss
def test_with_classes_it_is_the_published_loss_of_every_image(name):
    embeddings, labels = random_groups(0)
    labels = np.repeat(labels[:, :1, 2:], 3, axis=1)  # One class a group.
    flat, classes = np.float64(embeddings.reshape(18, 5)), labels.reshape(18)
    assert len(set(classes)) < 6  # Two groups share a class.
    similarities = flat @ flat.T
    # With classes the graded loss is that of classes.
    oracle = ORACLES.get(name, supcon)
    expected = []
    for i in range(18):
        others = np.arange(18) != i
        same = classes == classes[i]
        expected.append(oracle(similarities[i, same & others], similarities[i, ~same]))
    assert np.ptp(expected) > 0.01
    computed = create(name, CLASSES)(embeddings, {"attributes": labels}, **AT_START)
    np.testing.assert_allclose(
        computed, np.reshape(expected, (6, 3)).mean(axis=1), rtol=1e-4
    )


@by_role
def test_each_member_sets_a_threshold_of_graded_relevance(name):
    embeddings, labels = random_groups(1)
    flat, attributes = np.float64(embeddings.reshape(18, 5)), labels.reshape(18, 3)
    relevance = GRADED.pairwise(attributes[:, None], attributes[None])
    similarities = flat @ flat.T
    expected, num_between = [], 0
    for group in np.arange(18).reshape(6, 3):
        rows = []
        for i in group:
            for j in group[group != i]:
                own, others = relevance[i, j], np.arange(18) != i
                positive = (relevance[i] >= own - 1e-6) & others
                negative = (relevance[i] <= own - GAP + 1e-6) & others
                num_between += int(np.sum(others & ~positive & ~negative))
                if own > 0:
                    assert negative.any()
                    rows.append(
                        ORACLES[name](
                            similarities[i, positive], similarities[i, negative]
                        )
                    )
        expected.append(np.mean(rows) if rows else 0.0)
    assert np.ptp(expected) > 0.01
    computed = create(name, GRADED)(embeddings, {"attributes": labels}, **AT_START)
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-6)


def test_the_graded_loss_contrasts_with_all_that_is_no_more_relevant():
    embeddings, labels = random_groups(1)
    flat, attributes = np.float64(embeddings.reshape(18, 5)), labels.reshape(18, 3)
    relevance = GRADED.pairwise(attributes[:, None], attributes[None])
    logits = flat @ flat.T / 0.1
    expected = []
    for i in range(18):
        others, total = np.arange(18) != i, 0.0
        for j in np.flatnonzero(others):
            contrast = others & (relevance[i] <= relevance[i, j])
            share = np.exp(logits[i, j]) / np.exp(logits[i, contrast]).sum()
            total -= relevance[i, j] * np.log(share)
        expected.append(total / relevance[i, others].sum())
    assert len(np.unique(relevance)) == 4
    loss = create("rank_n_contrast", GRADED)
    computed = loss(embeddings, {"attributes": labels}, **AT_START)
    of_groups = np.reshape(expected, (6, 3)).mean(axis=1)
    np.testing.assert_allclose(computed, of_groups, rtol=1e-4)


@by_role
def test_negatives_of_a_group_are_compared_and_are_no_anchors(name):
    embeddings, labels = random_groups(2, num_images=4)
    classes = np.tile(np.arange(6)[:, None, None], (1, 4, 1))
    classes[:, 3] = 7 + np.arange(6)[:, None]
    loss = losses.create_loss(
        {"name": name},
        relevance_fn=CLASSES.pairwise,
        min_relevance_gap=GAP,
        axis_name=None,
        positives_per_anchor=2,
        negatives_per_anchor=1,
    )
    value = lambda x: loss(x, {"attributes": classes}, **AT_START)
    similarities = np.einsum("id,jd->ij", *[np.float64(embeddings.reshape(24, 5))] * 2)
    own = [4 * 2, 4 * 2 + 1, 4 * 2 + 2]
    expected = np.mean(
        [
            ORACLES[name](
                [similarities[i, j] for j in own if j != i],
                [similarities[i, j] for j in range(24) if j not in own],
            )
            for i in own
        ]
    )
    np.testing.assert_allclose(value(embeddings)[2], expected, rtol=1e-4)
    assert labels.shape[1] == 4


@each_loss
def test_four_devices_are_as_one(name):
    embeddings, labels = random_groups(3, size=8)
    labels = np.repeat(labels[:, :1], 3, axis=1)
    batch = {"attributes": jnp.asarray(labels)}
    whole = create(name, GRADED)
    value, grads = jax.value_and_grad(lambda x: whole(x, batch, **AT_START).mean())(
        embeddings
    )
    shared = create(name, GRADED, axis_name=devices.DATA_AXIS)
    values, of_devices = on_four_devices(shared, embeddings, batch)
    np.testing.assert_allclose(values, np.full(4, value), rtol=1e-5)
    np.testing.assert_allclose(of_devices, grads, rtol=1e-4, atol=1e-6)
    split = lambda x: jnp.asarray(x).reshape(4, 2, *x.shape[1:])
    alone = [
        whole(x, {"attributes": a}, **AT_START).mean()
        for x, a in zip(split(embeddings), split(labels), strict=True)
    ]
    assert abs(np.mean(alone) - value) > 1e-3


@each_loss
def test_blocks_change_nothing(name, monkeypatch):
    embeddings, labels = random_groups(4, size=8)
    batch = {"attributes": jnp.asarray(labels)}
    loss = lambda x: create(name, GRADED)(x, batch, **AT_START).mean()
    value, grads = jax.value_and_grad(loss)(embeddings)
    monkeypatch.setattr(batch_mining, "PAIRS", 24 * 5)
    in_blocks = lambda x: loss(x)  # Not the function that is compiled already.
    value_of_blocks, grads_of_blocks = jax.value_and_grad(in_blocks)(embeddings)
    np.testing.assert_allclose(value_of_blocks, value, rtol=1e-6)
    np.testing.assert_allclose(grads_of_blocks, grads, rtol=1e-5, atol=1e-7)


@each_loss
def test_memory_is_a_few_blocks(name):
    """4,096 images of 512 numbers: less than 500 MiB beside one matrix of all pairs."""
    loss = create(name, GRADED, positives=3)
    attributes = jax.ShapeDtypeStruct((1024, 4, 3), jnp.int32)
    embeddings = jax.ShapeDtypeStruct((1024, 4, 512), jnp.float32)
    value = lambda x, a: loss(x, {"attributes": a}, **AT_START).mean()
    compiled = jax.jit(jax.grad(value)).lower(embeddings, attributes).compile()
    used = compiled.memory_analysis().temp_size_in_bytes
    assert used < 500 * 2**20 + 4 * 4096**2


@each_loss
def test_groups_of_unrelated_images_count_nothing(name):
    embeddings, _ = random_groups(5)
    labels = np.arange(18, dtype=np.int32).reshape(6, 3, 1)
    loss = lambda x: create(name, CLASSES)(x, {"attributes": labels}, **AT_START)
    np.testing.assert_array_equal(loss(embeddings), np.zeros(6))
    assert not np.any(jax.jit(jax.grad(lambda x: loss(x).sum()))(embeddings))


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"config\.loss\.temperature must be above 0"):
        create("supcon", CLASSES, temperature=0.0)
    with pytest.raises(ValueError, match=r"config\.loss\.beta must be above 0"):
        create("multi_similarity", CLASSES, beta=-1.0)
    for name, option in {
        "contrastive": "margin", "circle": "gamma", "fast_ap": "num_bins",
        "rank_n_contrast": "temperature",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"config\.loss\.{option} must be"):
            create(name, CLASSES, **{option: 0})
    with pytest.raises(ValueError, match=r"config\.loss\.margin must be above 0 and b"):
        create("circle", CLASSES, margin=1.5)
    with pytest.raises(ValueError, match=r"min_relevance_gap must be above 0"):
        losses.create_loss(
            {"name": "supcon"}, relevance_fn=CLASSES.pairwise, min_relevance_gap=0.0
        )
    with pytest.raises(ValueError, match="negatives_per_anchor must be at least 1"):
        create("triplet_hinge", CLASSES)


def test_a_triplet_of_a_group_counts_only_with_a_negative_of_its_positive():
    """The second positive is no more relevant than the negative."""
    embeddings, _ = random_groups(6, size=4, num_images=4)
    labels = np.tile([[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 2]], (4, 1, 1))
    loss = losses.create_loss(
        {"name": "triplet_hinge", "margin": 4.0, "miner": {"name": "sampled"}},
        relevance_fn=GRADED.pairwise,
        min_relevance_gap=GAP,
        positives_per_anchor=2,
        negatives_per_anchor=1,
    )
    anchor, first, _, negative = np.moveaxis(np.float64(embeddings), 1, 0)
    distance = lambda a, b: np.sum((a - b) ** 2, axis=-1)
    expected = (4.0 + distance(anchor, first) - distance(anchor, negative)) / 2
    batch = {"attributes": jnp.asarray(labels)}
    np.testing.assert_allclose(loss(embeddings, batch, **AT_START), expected, rtol=1e-5)
