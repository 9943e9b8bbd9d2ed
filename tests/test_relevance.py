from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import relevance

LEVELS = (0.001, 0.02, 1.0)
KINDS = {
    "hierarchy": relevance.Hierarchy(LEVELS),
    "same_class": relevance.SameClass(),
}


def random_hierarchy(seed, size=30):
    """Attributes whose labels stand for whole paths, as those of `Records`."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 12, size)
    return np.stack([fine // 6, fine // 3, fine], axis=1).astype(np.int32)


def brute_force(attributes, of_depth):
    """The relevance of every pair, one pair at a time."""
    block = np.zeros((len(attributes), len(attributes)))
    for i, a in enumerate(attributes):
        for j, b in enumerate(attributes):
            depth = 0
            while depth < len(a) and a[depth] == b[depth]:
                depth += 1
            block[i, j] = of_depth[depth]
    return block


@pytest.mark.parametrize(
    ("kind", "of_depth"),
    [("hierarchy", (0.0, *LEVELS)), ("same_class", (0.0, 0.0, 0.0, 1.0))],
)
def test_pairwise_matches_the_definition(kind, of_depth):
    attributes = random_hierarchy(0)
    expected = brute_force(attributes, of_depth)
    assert set(np.unique(expected)) == set(of_depth)  # Every depth occurs.
    block = KINDS[kind].pairwise(attributes[:, None], attributes[None])
    assert block.dtype == np.float64
    np.testing.assert_array_equal(block, expected)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_pairwise_is_the_same_under_jax(kind, transform):
    attributes = random_hierarchy(1)
    anchors, others = attributes[:5, None], attributes[None, 5:]
    expected = KINDS[kind].pairwise(anchors, others)
    actual = transform(KINDS[kind].pairwise)(jnp.asarray(anchors), jnp.asarray(others))
    assert actual.shape == (5, 25)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 40))
def test_total_is_the_row_sum_without_the_record_itself(kind, seed, size):
    attributes = random_hierarchy(seed, size)
    block = KINDS[kind].pairwise(attributes[:, None], attributes[None])
    np.fill_diagonal(block, 0.0)
    np.testing.assert_allclose(
        KINDS[kind].total(attributes), block.sum(axis=1), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("levels", [(), (-0.1, 1), (1, 0.5), (0.1, np.inf), (np.nan,)])
def test_bad_levels_are_refused(levels):
    with pytest.raises(ValueError, match="not decreasing from coarse to fine"):
        relevance.Hierarchy(levels)


def test_a_level_without_a_relevance_is_refused():
    attributes = random_hierarchy(2)
    with pytest.raises(ValueError, match="for 2 levels, the records have 3"):
        relevance.Hierarchy((0.1, 1)).total(attributes)
    with pytest.raises(ValueError, match="for 2 levels, the records have 3"):
        relevance.Hierarchy((0.1, 1)).pairwise(attributes, attributes)


def test_kinds_are_created_by_name():
    assert isinstance(relevance.create_relevance("same_class"), relevance.SameClass)
    created = relevance.create_relevance("hierarchy", levels=LEVELS)
    assert isinstance(created, relevance.Hierarchy)
    assert created.levels == LEVELS
    with pytest.raises(ValueError, match="No relevance is named 'same'"):
        relevance.create_relevance("same")
