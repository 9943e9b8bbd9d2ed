"""Which images of the batch stand in for those of a triplet."""

import functools

from helpers.ranking_losses import create_loss_fn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.losses import batch_mining, mining
from deeprank_jax.relevance import Hierarchy

RELEVANCE = Hierarchy((0.1, 1.0))
GAP = 0.5
SEARCHING = [name for name in losses.MINERS if name != "sampled"]
each_way = pytest.mark.parametrize("miner", SEARCHING)
either = pytest.mark.parametrize("symmetric", [False, True], ids=["one_way", "both"])
both_modes = pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jit], ids=["eager", "jit"]
)


def make_loss(**options):
    defaults = dict(
        margin=0.7,
        miner="semi_hard",
        symmetric=False,
        relevance_fn=RELEVANCE.pairwise,
        min_relevance_gap=GAP,
    )
    return create_loss_fn(**{**defaults, **options})


def random_batch(seed, size=8, dim=4):
    """Returns unit embeddings `[B, 3, D]` and labels; a positive shares the finest."""
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(size, 3, dim)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    coarse = rng.integers(0, 3, (size, 3))
    labels = np.stack([coarse, coarse * 2 + rng.integers(0, 2, (size, 3))], axis=-1)
    labels[:, 1] = labels[:, 0]
    return embeddings, labels.astype(np.int32)


def judge(embeddings, attributes, row, swap):
    """Returns an anchor's distances, and which images are positives or negatives."""
    images = embeddings.reshape(-1, embeddings.shape[-1]).astype(np.float64)
    labels = attributes.reshape(-1, attributes.shape[-1])
    own, positive = 3 * row + swap, 3 * row + 1 - swap
    distances = [sum((images[own] - image) ** 2) for image in images]
    wanted = RELEVANCE.pairwise(labels[own], labels[positive])
    positives, negatives = [], []
    for j, other in enumerate(labels):
        relevance = RELEVANCE.pairwise(labels[own], other)
        if j != own and relevance >= wanted:
            positives.append(j)
        if j != own and relevance <= wanted - GAP:
            negatives.append(j)
    return np.array(distances), own, positive, positives, negatives


def hardest_reference(embeddings, attributes, swap):
    """Returns by definition `(d_ap, d_an)` of each triplet."""
    found = []
    for row in range(len(embeddings)):
        distances, _, _, positives, negatives = judge(embeddings, attributes, row, swap)
        farthest = max(distances[j] for j in positives)
        found.append((farthest, min(distances[j] for j in negatives)))
    return np.array(found)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft_margin"])
@either
@both_modes
def test_batch_hard_matches_its_definition(seed, soft, symmetric, transform):
    embeddings, attributes = random_batch(seed)
    by_way = []
    for swap in (0, 1)[: 1 + symmetric]:
        to_positive, to_negative = hardest_reference(embeddings, attributes, swap).T
        gap = to_positive - to_negative
        by_way.append(np.log1p(np.exp(gap)) if soft else np.maximum(0.7 + gap, 0.0))
        sampled = np.sum((embeddings[:, 0] - embeddings[:, 1]) ** 2, axis=-1)
        assert np.any(to_positive > sampled + 0.1)  # Not all are the sampled ones.
    loss_fn = make_loss(
        miner="batch_hard", soft_margin=soft, symmetric=symmetric, transform=transform
    )
    found = loss_fn(embeddings, jnp.asarray(attributes), step=0, key=jax.random.key(0))
    np.testing.assert_allclose(found, np.mean(by_way, axis=0), rtol=1e-4, atol=1e-5)


def test_batch_hard_takes_its_own_positive_whatever_rounding_says():
    arrays = dict(anchors=jnp.zeros((1, 1)), images=jnp.array([[0.0], [2.0], [1.0]]))
    positives, negatives, found = mining.hardest_pairs(
        **arrays,
        columns=jnp.array([0]),
        positive_columns=jnp.array([1]),
        positive_relevance=jnp.array([0.4]),
        # Its relevance in the block is lower than by itself; the anchor's own is 0.
        relevance=jnp.array([[0.0, 0.3999, 0.1]]),
        min_relevance_gap=0.2,
    )
    assert (int(positives[0]), int(negatives[0]), bool(found[0])) == (1, 2, True)


def test_batch_hard_is_semi_hard_while_it_warms_up():
    embeddings, attributes = random_batch(0)
    run = lambda step, **options: jax.jit(make_loss(**options))(
        embeddings, attributes, step=jnp.int32(step), key=jax.random.key(0)
    )
    warmed = functools.partial(run, miner="batch_hard", warmup_steps=3)
    semi_hard, hard = run(0), run(0, miner="batch_hard")
    assert np.all(np.abs(semi_hard - hard).max() > 0.1)
    for step, expected in enumerate([semi_hard] * 3 + [hard] * 2):
        np.testing.assert_allclose(warmed(step), expected, rtol=1e-6)


def weights_by_definition(distances, dim):
    """`min(lambda, 1 / q(d))` with lambda that of the distance .5; beyond 1.4 none."""
    density = lambda d: d ** (dim - 2) * (1 - d**2 / 4) ** ((dim - 3) / 2)
    return np.array([min(1 / density(0.5), 1 / density(d)) for d in distances])


@pytest.mark.parametrize("dim", [3, 4, 8])
def test_log_inverse_density_matches_its_definition(dim):
    distances = np.linspace(0.05, 1.4, 60)
    found = mining.log_inverse_density(jnp.asarray(distances**2), dim)
    expected = np.log(weights_by_definition(distances, dim))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    far = mining.log_inverse_density(jnp.array([0.0, 2.0, 4.0]), 512)
    assert np.all(np.isfinite(far))


def draw(embeddings, attributes, keys):
    """Returns the negatives drawn with each key, `[K, B]`, and if there was one."""
    images = batch_mining.gather_images(embeddings, attributes, None)
    anchors = 3 * jnp.arange(len(embeddings))
    mined = jax.jit(
        jax.vmap(
            lambda key: batch_mining.mine(
                images,
                anchors,
                anchors + 1,
                miner=losses.DistanceWeighted(),
                relevance_fn=RELEVANCE.pairwise,
                min_relevance_gap=GAP,
                key=key,
            )
        )
    )(keys)
    return np.asarray(mined.negatives), np.asarray(mined.has_negative)


@pytest.mark.parametrize("dim", [3, 6])
def test_the_law_of_distance_weighted_draws(dim):
    embeddings, attributes = random_batch(1, size=6, dim=dim)
    embeddings[0, 2] = embeddings[0, 0] + 0.01  # Nearer than the clip, and no unit.
    embeddings[0, 2] /= np.linalg.norm(embeddings[0, 2])
    attributes[0, 2] = (attributes[0, 0, 0] + 1) % 3 * np.array([1, 2])
    num = 4000
    columns, found = draw(
        jnp.asarray(embeddings),
        jnp.asarray(attributes),
        jax.random.split(jax.random.key(7), num),
    )
    p_values, clipped, too_far = [], 0, 0
    for row in range(6):
        squared, _, _, _, negatives = judge(embeddings, attributes, row, 0)
        near = [j for j in negatives if squared[j] <= 1.4**2]
        assert len(near) >= 3
        assert found[:, row].all()
        clipped += sum(squared[j] < 0.25 for j in near)
        too_far += len(negatives) - len(near)
        counts = np.bincount(columns[:, row], minlength=len(squared))
        assert counts[near].sum() == num  # Nothing else is ever drawn.
        weights = weights_by_definition(np.sqrt(squared[near]), dim)
        expected = num * weights / weights.sum()
        uniform = stats.chisquare(counts[near], np.full(len(near), num / len(near)))
        assert uniform.pvalue < 1e-3
        p_values.append(stats.chisquare(counts[near], expected).pvalue)
    assert clipped > 0
    assert too_far > 0
    assert min(p_values) > 1e-3
    # Anchors draw apart from each other, and steps do.
    assert len({tuple(row) for row in columns[:50]}) > 40


def test_a_draw_is_a_function_of_the_step_and_of_the_anchor():
    embeddings, attributes = map(jnp.asarray, random_batch(0, size=8))
    twice = jnp.tile(embeddings[:1], (8, 1, 1)), jnp.tile(attributes[:1], (8, 1, 1))
    keys = jax.random.split(jax.random.key(0), 2)
    columns, _ = draw(embeddings, attributes, keys)
    again, _ = draw(embeddings, attributes, keys)
    np.testing.assert_array_equal(columns, again)
    assert np.any(columns[0] != columns[1])
    # Equal anchors with equal candidates still draw for themselves.
    same, found = draw(
        twice[0].at[:, 2].set(embeddings[:, 2]),
        twice[1].at[:, 2].set(attributes[:1, 0] + jnp.array([[3, 6]])),
        keys,
    )
    assert found.any()
    assert len(np.unique(same[0])) > 1


@each_way
@either
def test_no_candidate_leaves_the_sampled_triplet(miner, symmetric):
    embeddings, attributes = random_batch(0)
    attributes[:] = 0  # Nothing is less relevant than the positive.
    at = dict(step=0, key=jax.random.key(0))
    found = make_loss(miner=miner, symmetric=symmetric)(embeddings, attributes, **at)
    expected = make_loss(miner="sampled")(embeddings, attributes, **at)
    if miner == "batch_hard":  # All others are positives.
        distances = [judge(embeddings, attributes, row, 0)[0] for row in range(8)]
        to_negative = [distances[row][3 * row + 2] for row in range(8)]
        expected = np.maximum(0.7 + np.max(distances, axis=1) - to_negative, 0.0)
    # Of the positive it is no negative, and counts 0.
    np.testing.assert_allclose(found, expected / (1 + symmetric), rtol=1e-5)


@each_way
@either
@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft_margin"])
@pytest.mark.parametrize("where", ["all", "none_else"])
def test_gradients_are_finite_where_embeddings_coincide(miner, symmetric, soft, where):
    embeddings, attributes = random_batch(0)
    embeddings = np.ones_like(embeddings) / 2 if where == "all" else embeddings
    attributes = attributes * (where == "all")
    loss_fn = make_loss(miner=miner, symmetric=symmetric, soft_margin=soft)
    loss, grads = jax.value_and_grad(
        lambda e: jnp.mean(
            loss_fn(e, jnp.asarray(attributes), step=0, key=jax.random.key(0))
        )
    )(embeddings)
    assert np.isfinite(loss)
    assert loss > 0
    assert np.all(np.isfinite(grads))


@each_way
@either
def test_vmap_is_one_batch_at_a_time(miner, symmetric):
    batches = [random_batch(seed) for seed in range(3)]
    embeddings, attributes = (jnp.stack(x) for x in zip(*batches, strict=True))
    keys = jax.random.split(jax.random.key(0), 3)
    options = dict(warmup_steps=2) if miner == "batch_hard" else {}
    loss_fn = make_loss(miner=miner, symmetric=symmetric, **options)
    one = lambda e, a, step, key: loss_fn(e, a, step=step, key=key)
    found = jax.vmap(one)(embeddings, attributes, jnp.arange(3), keys)
    for i in range(3):
        expected = one(embeddings[i], attributes[i], i, keys[i])
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)


@each_way
@either
def test_blocks_change_nothing(miner, symmetric, monkeypatch):
    embeddings, attributes = map(jnp.asarray, random_batch(2, size=9))

    def run():
        loss_fn = make_loss(miner=miner, symmetric=symmetric)
        return jax.value_and_grad(
            lambda e: loss_fn(e, attributes, step=0, key=jax.random.key(0)).mean()
        )(embeddings)

    whole = run()
    sizes, pairwise = [], mining.pairwise_squared_distances
    monkeypatch.setattr(
        mining,
        "pairwise_squared_distances",
        lambda x, y: sizes.append(len(x)) or pairwise(x, y),
    )
    monkeypatch.setattr(batch_mining, "PAIRS", 27 * 4)  # Does not divide 9, nor 18.
    for a, b in zip(run(), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert max(sizes) <= 4


@each_way
@either
def test_the_gradient_of_four_devices_is_that_of_one(miner, symmetric):
    """Mean over devices of the gradients that flow back through the gathering."""
    embeddings, attributes = map(jnp.asarray, random_batch(3, size=16))
    key = jax.random.key(5)
    whole = make_loss(miner=miner, symmetric=symmetric)
    loss, grads = jax.value_and_grad(
        lambda e: whole(e, attributes, step=0, key=key).mean()
    )(embeddings)
    shared = make_loss(miner=miner, symmetric=symmetric, axis_name=devices.DATA_AXIS)
    split = lambda x: x.reshape(4, 4, *x.shape[1:])

    def on_device(e, a):
        found, grads = jax.value_and_grad(
            lambda e: shared(e, a, step=0, key=key).mean()
        )(e)
        return jax.lax.pmean(found, devices.DATA_AXIS), grads

    losses_found, found = jax.pmap(on_device, axis_name=devices.DATA_AXIS)(
        split(embeddings), split(attributes)
    )
    np.testing.assert_allclose(losses_found, np.full(4, loss), rtol=1e-5)
    # `pmean` of a parameter's gradient is the sum over images, by the devices.
    np.testing.assert_allclose(found / 4, split(grads), rtol=1e-4, atol=1e-6)
    # It is not what the devices find each for itself.
    alone = [whole(e, a, step=0, key=key).mean() for e, a in zip(
        split(embeddings), split(attributes), strict=True)]  # fmt: skip
    assert abs(np.mean(alone) - loss) > 1e-3


@each_way
@pytest.mark.parametrize("kind", ["labels", "vectors"])
def test_memory_is_a_few_blocks(miner, kind):
    """4,096 triplets, so 12,288 images of 128 dimensions, both ways."""
    size, dim = 4096, 128
    if kind == "labels":
        options, attributes = {}, jax.ShapeDtypeStruct((size, 3, 2), jnp.int32)
    else:  # Of which XLA:CPU keeps what is broadcast to [B, M, 64].
        squared = lambda a, b: jnp.exp(-jnp.sum((a - b) ** 2, axis=-1))
        options = dict(relevance_fn=squared)
        attributes = jax.ShapeDtypeStruct((size, 3, 64), jnp.float32)
    if miner == "batch_hard":
        options["warmup_steps"] = 5
    loss_fn = make_loss(miner=miner, symmetric=True, **options)
    compiled = (
        jax.jit(
            jax.value_and_grad(
                lambda e, a, step, key: loss_fn(e, a, step=step, key=key).mean()
            )
        )
        .lower(
            jax.ShapeDtypeStruct((size, 3, dim), jnp.float32),
            attributes,
            jnp.int32(0),
            jax.random.key(0),
        )
        .compile()
    )
    # One [4096, 4096] matrix takes 64 MiB.
    assert compiled.memory_analysis().temp_size_in_bytes < 250 * 2**20
