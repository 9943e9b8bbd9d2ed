import functools
import pathlib
import tempfile

from helpers.relevance_records import create_records
from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import relevance

LEVELS = (0.001, 0.02, 1.0)
LABEL_KINDS = {
    "hierarchy": relevance.Hierarchy(LEVELS),
    "same_class": relevance.SameClass(),
}
_NUM_LISTED = 20


def random_hierarchy(seed, size=30):
    """Attributes whose labels stand for whole paths, as those of `Records`."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 12, size)
    return np.stack([fine // 6, fine // 3, fine], axis=1).astype(np.int32)


def random_labels(seed, size=30):
    return np.random.default_rng(seed).integers(0, 4, (size, 3)).astype(np.int32)


def random_vectors(seed, size=30):
    """Vectors far from 0, some of them near to others, some the same."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((4, 8)) + 3.0
    vectors = centers[rng.integers(0, 4, size)]
    vectors = vectors + 0.1 * rng.standard_normal((size, 8)) * rng.integers(
        0, 2, (size, 1)
    )
    return vectors.astype(np.float32)


def random_directions(seed, size=30):
    vectors = random_vectors(seed, size) - 3.0
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_numbers(seed, size=30):
    """Numbers in the table, the last of which is that of all others."""
    numbers = np.random.default_rng(seed).integers(0, _NUM_LISTED + 1, (size, 1))
    return numbers.astype(np.int32)


@functools.cache
def create_table():
    rng = np.random.default_rng(0)
    pairs = [(i, j) for i in range(_NUM_LISTED) for j in range(i)]
    rows = [f"r{i},r{j},{rng.random():.3f}" for i, j in pairs if rng.random() < 0.3]
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "pairs.csv")
        path.write_text("id_a,id_b,relevance\n" + "\n".join(rows) + "\n")
        table = relevance.Table(str(path))
    assert len(table._ids) == _NUM_LISTED
    return table


def embedding(kernel, scale=None):
    return lambda: relevance.Embedding("not read.npy", kernel, scale)


INSIDE = {
    "hierarchy": (lambda: LABEL_KINDS["hierarchy"], random_hierarchy),
    "same_class": (lambda: LABEL_KINDS["same_class"], random_hierarchy),
    "attributes": (
        lambda: relevance.Attributes({"digit": 1.0, "parity": 0.3, "size": 0.2}),
        random_labels,
    ),
    "exponential": (embedding("exponential", 0.5), random_vectors),
    "linear": (embedding("linear", 4.0), random_vectors),
    "cosine": (embedding("cosine"), random_directions),
    "table": (create_table, random_numbers),
    "of_labels": (
        lambda: relevance.LabelFunction(lambda a, b: 1.0 / (1 + abs(a - b).sum(-1))),
        random_labels,
    ),
}
KINDS = sorted([*INSIDE, *(f"{name} in category" for name in INSIDE)])


def create(kind, seed, size=30):
    """Returns a relevance, also within a category, and attributes of its own."""
    make, draw = INSIDE[kind.removesuffix(" in category")]
    made, attributes = make(), draw(seed, size)
    if kind in INSIDE:
        return made, attributes
    category = np.random.default_rng(seed + 1).integers(0, 2, (size, 1))
    attributes = np.concatenate([category.astype(attributes.dtype), attributes], 1)
    return relevance.WithinCategory(made, 0), attributes


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


def pair_by_pair(kind, attributes):
    """The relevance of every pair, each asked for by itself."""
    return np.array(
        [[float(kind.pairwise(a, b)) for b in attributes] for a in attributes]
    )


@pytest.mark.parametrize(
    ("kind", "of_depth"),
    [("hierarchy", (0.0, *LEVELS)), ("same_class", (0.0, 0.0, 0.0, 1.0))],
)
def test_pairwise_matches_the_definition(kind, of_depth):
    attributes = random_hierarchy(0)
    expected = brute_force(attributes, of_depth)
    assert set(np.unique(expected)) == set(of_depth)  # Every depth occurs.
    block = LABEL_KINDS[kind].pairwise(attributes[:, None], attributes[None])
    assert block.dtype == np.float64
    np.testing.assert_array_equal(block, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_pairwise_is_the_same_under_jax(kind, transform):
    made, attributes = create(kind, 1)
    anchors, others = attributes[:5, None], attributes[None, 5:]
    expected = made.pairwise(anchors, others)
    assert len(np.unique(expected)) > 1
    actual = transform(made.pairwise)(jnp.asarray(anchors), jnp.asarray(others))
    assert actual.shape == (5, 25)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 20))
def test_every_form_of_a_question_has_the_same_answer(kind, seed, size):
    made, attributes = create(kind, seed, size)
    expected = pair_by_pair(made, attributes)
    assert np.isfinite(expected).all()
    assert (expected >= 0).all()
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
    close(expected, expected.T)
    close(made.pairwise(attributes[:, None], attributes[None]), expected)
    half = attributes[: size // 2]
    close(made.pairwise(half[:, None], attributes[None]), expected[: size // 2])
    every = np.broadcast_to(attributes, (size, *attributes.shape))
    close(made.pairwise(attributes[:, None], every), expected)
    close(made.pairwise(attributes, attributes), np.diagonal(expected))
    close(made.pairwise(attributes[0], attributes), expected[0])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 40))
def test_total_is_the_row_sum_without_the_record_itself(kind, seed, size):
    made, attributes = create(kind, seed, size)
    block = np.array(made.pairwise(attributes[:, None], attributes[None]), np.float64)
    np.fill_diagonal(block, 0.0)
    expected = block.sum(axis=1)
    if hasattr(made, "total"):
        found = made.total(attributes)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    one = np.zeros(size, int)
    found = relevance.total_relevance(made, attributes, one, progress=False)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


def test_kinds_that_know_a_closed_form():
    closed = {kind for kind in KINDS if hasattr(create(kind, 0)[0], "total")}
    inside = {"attributes", "hierarchy", "same_class", "table"}
    assert closed == inside | {f"{name} in category" for name in inside}


@pytest.mark.parametrize("levels", [(), (-0.1, 1), (1, 0.5), (0.1, np.inf), (np.nan,)])
def test_bad_levels_are_refused(levels):
    with pytest.raises(ValueError, match="not decreasing from coarse to fine"):
        relevance.Hierarchy(levels)


def test_a_level_without_a_relevance_is_refused():
    attributes = random_hierarchy(2)
    with pytest.raises(ValueError, match="for 2 levels, but the records have 3"):
        relevance.Hierarchy((0.1, 1)).total(attributes)
    with pytest.raises(ValueError, match="for 2 levels, but the records have 3"):
        relevance.Hierarchy((0.1, 1)).pairwise(attributes, attributes)


def test_kinds_are_created_by_name():
    assert isinstance(relevance.create_relevance("same_class"), relevance.SameClass)
    created = relevance.create_relevance("hierarchy", levels=LEVELS)
    assert isinstance(created, relevance.Hierarchy)
    assert created.levels == LEVELS
    with pytest.raises(
        ValueError,
        match=r"config.relevance.name='same' is not known; choose one of attributes",
    ):
        relevance.create_relevance("same")


def test_a_kind_says_which_options_it_takes():
    with pytest.raises(ValueError, match="its options are: file, kernel, scale"):
        relevance.create_relevance("embedding", level=1)
    with pytest.raises(ValueError, match="its options are: none"):
        relevance.create_relevance("same_class", levels=(1,))


@pytest.mark.parametrize(
    "weights", [{}, {"a": 0}, {"a": 1, "b": -1}, {"a": np.nan}, {"a": np.inf}]
)
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"finite, at least 0 and not all 0"):
        relevance.Attributes(weights)


def test_attributes_count_labels_by_name():
    parity = np.array([0, 1, 0, 1, 1, 0, 0, 1], np.int32)
    records = create_records(8, columns={"parity": parity})
    kind = relevance.Attributes({"parity": 0.25, "class": 1.0})
    (attributes,) = kind.attributes([records])
    labels = records.labels[:, records.level_names.index("class")]
    same_class = labels[:, None] == labels
    same_parity = parity[:, None] == parity
    block = kind.pairwise(attributes[:, None], attributes[None])
    np.testing.assert_array_equal(block, 1.0 * same_class + 0.25 * same_parity)
    assert len(np.unique(block)) == 4


def test_attributes_that_are_not_known():
    columns = {"size": np.array([0, -1, 2, -1], np.int32)}
    records = create_records(4, columns=columns)
    with pytest.raises(ValueError, match=r"names 'colour', but .* group, class, size;"):
        relevance.Attributes({"colour": 1.0}).attributes([records])
    with pytest.raises(ValueError, match=r"2 records have no size, e\.g\. 'r1'"):
        relevance.Attributes({"size": 1.0}).attributes([records])
