import functools

from helpers.ranking_losses import create_loss_fn
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax.losses import diagnostics, mining, triplet
from deeprank_jax.relevance import Hierarchy

AT_START = dict(step=0, key=jax.random.key(0))


def reference(anchor, positive, negative, margin):
    """The definition, one triplet at a time."""
    total = []
    for a, p, n in zip(anchor, positive, negative, strict=True):
        total.append(max(0.0, margin + sum((a - p) ** 2) - sum((a - n) ** 2)))
    return np.array(total)


def random_triplets(seed, batch=5, dim=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, batch, dim)).astype(np.float32)


# Every loss of triplets, for the properties that all have.
KINDS = [triplet.triplet_hinge_loss, triplet.triplet_soft_margin_loss]
each_loss = pytest.mark.parametrize("loss", KINDS, ids=["hinge", "soft_margin"])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_soft_margin_matches_the_definition(transform):
    triplets = random_triplets(seed=0)
    gaps = [
        sum((a - p) ** 2) - sum((a - n) ** 2) for a, p, n in zip(*triplets, strict=True)
    ]
    assert min(gaps) < 0 < max(gaps)
    loss = functools.partial(triplet.triplet_soft_margin_loss, reduce_fn=None)
    found = transform(loss)(*triplets)
    np.testing.assert_allclose(found, np.log1p(np.exp(gaps)), rtol=1e-5, atol=1e-6)
    far = jnp.full((1, 1), 1e3)  # exp would overflow.
    assert loss(jnp.zeros((1, 1)), far, jnp.zeros((1, 1))) == 1e6


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 3.0])
def test_matches_the_definition(margin, transform):
    triplets = random_triplets(seed=0)
    expected = reference(*triplets, margin)
    assert 0 < np.count_nonzero(expected) <= len(expected)  # Not all inactive.
    loss_fn = transform(
        lambda a, p, n: triplet.triplet_hinge_loss(
            a, p, n, margin=margin, reduce_fn=None
        )
    )
    np.testing.assert_allclose(loss_fn(*triplets), expected, rtol=1e-5, atol=1e-6)


def test_the_hinge_is_on_each_triplet_not_on_the_mean():
    anchor = jnp.zeros((2, 1))
    positive, negative = jnp.array([[1.0], [0.0]]), jnp.array([[0.0], [3.0]])
    # Losses 1 and 0; the mean gap, -4, would give 0.
    loss = triplet.triplet_hinge_loss(anchor, positive, negative, margin=0.0)
    assert loss == 0.5


@each_loss
def test_a_masked_triplet_counts_for_nothing(loss):
    triplets = random_triplets(seed=1)
    where = np.array([True, False, True, True, False])
    np.testing.assert_allclose(
        loss(*triplets, where=where),
        loss(*triplets[:, where]),
        rtol=1e-6,
    )


@each_loss
@pytest.mark.parametrize("case", ["all_masked", "anchor_is_positive"])
def test_gradient_is_finite(case, loss):
    anchor, positive, negative = random_triplets(seed=2)
    where = np.zeros(5, bool) if case == "all_masked" else None
    positive = anchor if case == "anchor_is_positive" else positive
    grads = jax.grad(loss, argnums=(0, 1, 2))(anchor, positive, negative, where=where)
    assert all(jnp.isfinite(g).all() for g in grads)


@each_loss
def test_leading_batch_axes_and_vmap_agree(loss):
    triplets = random_triplets(seed=3, batch=6).reshape(3, 2, 3, 4)
    loss_fn = lambda a, p, n: loss(a, p, n, reduce_fn=None)
    np.testing.assert_allclose(
        loss_fn(*triplets), jax.vmap(loss_fn)(*triplets), rtol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16))
def test_rotating_the_space_changes_nothing(seed):
    triplets = random_triplets(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    rotated = (triplets @ rotation).astype(np.float32)
    np.testing.assert_allclose(
        triplet.triplet_hinge_loss(*rotated),
        triplet.triplet_hinge_loss(*triplets),
        rtol=1e-3,
        atol=1e-4,
    )


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="share one shape"):
        triplet.triplet_hinge_loss(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones((1, 3)))


def attributes_with_positives(rng, batch=8):
    """Returns `[B, 3, 2]` hierarchical labels; anchor and positive share the finest."""
    coarse = rng.integers(0, 3, (batch, 3))
    labels = np.stack([coarse, coarse * 2 + rng.integers(0, 2, (batch, 3))], axis=-1)
    labels[:, 1] = labels[:, 0]
    return labels.astype(np.int32)


def directed_reference(embeddings, attributes, relevance, anchor, positive, options):
    """The definition, one anchor and one image at a time."""
    images = embeddings.reshape(-1, embeddings.shape[-1])
    image_attributes = attributes.reshape(-1, attributes.shape[-1])
    losses = []
    for i in range(len(embeddings)):
        own = attributes[i, anchor]
        wanted = relevance.pairwise(own, attributes[i, positive]) - options["gap"]
        fits = [relevance.pairwise(own, other) <= wanted for other in image_attributes]
        distances = np.sum((images - embeddings[i, anchor]) ** 2, axis=1)
        to_positive = distances[3 * i + positive]
        nearest = sorted(
            d for d, fit in zip(distances, fits, strict=True) if fit and d > to_positive
        )
        if options["negatives"] == "semi_hard" and nearest:
            to_negative = nearest[0]
        elif anchor == 0 or fits[3 * i + 2]:
            to_negative = distances[3 * i + 2]
        else:
            to_negative = np.inf
        losses.append(max(0.0, options["margin"] + to_positive - to_negative))
    return np.array(losses)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("negatives", ["sampled", "semi_hard"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_of_a_batch_matches_its_definition(seed, negatives, symmetric):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(8, 3, 3)).astype(np.float32)
    embeddings[0, 1] += 100.0  # Nothing lies beyond this positive.
    attributes, relevance = attributes_with_positives(rng), Hierarchy((0.1, 1.0))
    options = dict(margin=0.7, negatives=negatives, gap=0.5)
    reference = lambda *pair: directed_reference(
        embeddings, attributes, relevance, *pair, options
    )
    expected = reference(0, 1)
    if symmetric:
        expected = (expected + reference(1, 0)) / 2
    loss_fn = create_loss_fn(
        margin=0.7,
        miner=negatives,
        symmetric=symmetric,
        relevance_fn=relevance.pairwise,
        min_relevance_gap=0.5,
    )
    assert np.count_nonzero(expected) > 2
    for transform in (lambda f: f, jax.jit):
        found = transform(loss_fn)(embeddings, jnp.asarray(attributes), **AT_START)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_symmetric_loss_leaves_out_what_is_no_negative_of_the_positive():
    # The negative is as relevant to the positive as the anchor is.
    embeddings = jnp.array([[[0.0], [1.0], [0.0]]])
    attributes = jnp.array([[[0], [1], [2]]])
    table = jnp.array([[9.0, 1.0, 0.0], [1.0, 9.0, 1.0], [0.0, 1.0, 9.0]])
    loss_fn = create_loss_fn(
        margin=0.5,
        miner="sampled",
        symmetric=True,
        relevance_fn=lambda a, b: table[a[..., 0], b[..., 0]],
        min_relevance_gap=0.5,
    )
    assert loss_fn(embeddings, attributes, **AT_START) == (0.5 + 1.0) / 2


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_gap_of_just_the_least_one_counts(transform):
    """Every triple of two decimals: .06 - .01 is below .05 in float32."""
    grid = np.meshgrid(*[np.arange(101)] * 3, indexing="ij")
    relevance, positive, gap = (np.float32(x / 100) for x in grid)
    found = transform(mining.is_less_relevant)(relevance, positive, gap)
    expected = (grid[0] < grid[1]) & (grid[1] - grid[0] >= grid[2])
    assert np.any((positive - relevance < gap) & expected)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("negatives", ["sampled", "semi_hard"])
def test_the_loss_counts_a_gap_of_just_the_least_one(negatives):
    # The only image that may be a negative, of the positive, too, is .05 less relevant.
    table = jnp.array([[9.0, 0.06, 0.01], [0.06, 9.0, 0.01], [0.01, 0.01, 9.0]])
    loss_fn = create_loss_fn(
        margin=3.5,
        miner=negatives,
        symmetric=True,
        relevance_fn=lambda a, b: table[a[..., 0], b[..., 0]],
        min_relevance_gap=0.05,
    )
    embeddings = jnp.array([[[0.0], [1.0], [2.0]]])
    attributes = jnp.array([[[0], [1], [2]]])
    # From the positive both lie 1 away, so that the negative is not semi-hard.
    assert loss_fn(embeddings, attributes, **AT_START) == (0.5 + 3.5) / 2


def test_semi_hard_negatives_may_have_just_the_least_gap():
    columns, found = mining.semi_hard_negatives(
        jnp.zeros((1, 1)),
        jnp.ones((1, 1)),
        jnp.array([[2.0], [3.0]]),
        positive_relevance=jnp.array([0.06]),
        relevance=jnp.array([[0.02, 0.01]]),
        min_relevance_gap=0.05,
    )
    assert (int(columns[0]), bool(found[0])) == (1, True)


def test_gradient_flows_to_the_chosen_negative():
    embeddings = jnp.array([[[0.0], [1.0], [9.0]], [[5.0], [5.5], [1.5]]])
    attributes = jnp.array([[[0], [0], [1]], [[2], [2], [3]]])
    loss_fn = create_loss_fn(
        margin=4.0,
        miner="semi_hard",
        symmetric=False,
        relevance_fn=lambda a, b: (a[..., -1] == b[..., -1]) * 1.0,
        min_relevance_gap=0.5,
    )
    grads = jax.grad(lambda e: loss_fn(e, attributes, **AT_START)[0])(embeddings)
    # For anchor 0 the image at 1.5 is nearer than its own negative at 9.
    assert grads[1, 2, 0] == -3.0
    assert grads[0, 2, 0] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(miner="hard"), r"config\.loss\.miner\.name='hard' is not known"),
        (dict(margin=0.0), r"config\.loss\.margin must be above 0"),
        (dict(min_relevance_gap=0.0), "min_relevance_gap must be above 0"),
        (
            dict(miner="batch_hard", warmup_steps=-1),
            r"config\.loss\.miner\.warmup_steps must be at least 0",
        ),
        (
            dict(warmup_steps=5),
            r"config\.loss\.miner\.warmup_steps is not an option of",
        ),
    ],
)
def test_a_loss_that_cannot_be_is_refused(change, message):
    options = dict(
        margin=0.2, miner="semi_hard", symmetric=False, min_relevance_gap=0.1
    )
    with pytest.raises(ValueError, match=message):
        create_loss_fn(relevance_fn=lambda a, b: a, **{**options, **change})


def test_diagnostics_match_their_definitions():
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32) * [1, 2, 3, 0]
    pairs = np.mean([np.sum((a - b) ** 2) for a in x for b in x])
    np.testing.assert_allclose(diagnostics.mean_squared_distance(x), pairs, rtol=1e-5)
    spectrum = np.linalg.eigvalsh(np.cov(x.T))
    expected = spectrum.sum() ** 2 / (spectrum**2).sum()
    np.testing.assert_allclose(diagnostics.effective_rank(x), expected, rtol=1e-4)
    assert diagnostics.effective_rank(jnp.ones((5, 3))) == 0.0
