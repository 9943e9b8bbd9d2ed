from helpers.relevance_records import create_records
import numpy as np
import pytest

from deeprank_jax import relevance
from deeprank_jax.errors import ConfigError, UserError


@pytest.fixture
def kinds(monkeypatch):
    """Forgets the kinds that a test registers."""
    monkeypatch.setattr(relevance.RELEVANCES, "_kinds", dict(relevance.RELEVANCES))


class Own:
    """The number of labels that two records share; tests replace the methods."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def attributes(self, splits):
        return [records.labels for records in splits]

    def pairwise(self, a, b):
        return self.scale * (a == b).sum(-1)


@pytest.mark.usefixtures("kinds")
def test_a_class_of_ones_own():
    for _ in range(2):  # A config file may be read twice.
        assert relevance.register("own")(Own) is Own
    kind = relevance.create_relevance("own", scale=2.0)
    (records,) = relevance.attach(kind, {"train": create_records(9)}).values()
    assert kind.pairwise(records.attributes[0], records.attributes[4]) == 4.0
    inside = relevance.create_relevance("own", category_level=0)
    assert isinstance(inside, relevance.WithinCategory)
    with pytest.raises(
        ConfigError, match=r"size is not .*'own'; its options are: scale"
    ):
        relevance.create_relevance("own", size=2.0)


@pytest.mark.usefixtures("kinds")
def test_a_function_of_ones_own():
    @relevance.register("close")
    def close(a, b):
        return 1.0 / (1.0 + abs(a[..., -1] - b[..., -1]))

    assert close(np.array([1]), np.array([3])) == 1 / 3
    kind = relevance.create_relevance("close", category_level=0)
    (records,) = relevance.attach(kind, {"train": create_records(9)}).values()
    attributes = records.attributes
    block = kind.pairwise(attributes[:, None], attributes[None])
    np.testing.assert_array_equal(block[0, :5], [1, 0.5, 0, 0, 1])
    with pytest.raises(ConfigError, match="'close'; its options are: none"):
        relevance.create_relevance("close", scale=1.0)


@pytest.mark.usefixtures("kinds")
def test_what_cannot_be_registered():
    for name in ("same_class", "table", "golden"):
        with pytest.raises(
            ConfigError, match=f"'{name}' is a built-in name of config.r"
        ):
            relevance.register(name)(Own)
    with pytest.raises(ValueError, match=r"'half' .* has no method pairwise\(\)"):
        relevance.register("half")(type("Half", (), {"attributes": Own.attributes}))


def attach(level=None, **methods):
    kind = Own()
    for name, method in methods.items():
        setattr(kind, name, method)
    if level is not None:
        kind = relevance.WithinCategory(kind, level)
    return relevance.attach(kind, {"train": create_records(9)})


@pytest.mark.parametrize("level", [None, 0])
@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], r"returned 0; it must return a list of 1 arrays"),
        (np.zeros((9, 2)), r"returned ndarray; it must return a list of 1"),
        ([[0] * 9], r"pool/train: .* returned list; .* of shape \(9, A\)"),
        ([np.zeros(9)], r"returned shape \(9,\); .* of shape \(9, A\)"),
        ([np.zeros((8, 2))], r"returned shape \(8, 2\)"),
        ([np.full((9, 1), "a")], "returned values of type <U1"),
    ],
)
def test_attributes_that_cannot_be(level, found, message):
    with pytest.raises(ValueError, match=message):
        attach(level, attributes=lambda splits: found)


@pytest.mark.parametrize("level", [None, 0])
@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (
            lambda a, b: 1.0 * (a == b),
            r"float64 of shape \(9, 9, 2\); .*shape \(9, 9\)",
        ),
        (lambda a, b: 1.0, r"of shape \(\); pairwise must return"),
        (lambda a, b: (a == b).sum(-1).astype(str), r"<U21 of shape \(9, 9\)"),
        (lambda a, b: (a[..., -1] - b[..., -1]) / 1, r"of 'r0' and 'r1' is -1\.0; it"),
        (
            lambda a, b: np.where(a[..., -1] * b[..., -1] == 9, np.nan, 1.0),
            "of 'r3' and 'r3' is nan; it",
        ),
        (
            lambda a, b: abs(a - b).sum(-1) / a.ndim,
            r"in a block of pairs and .* by itself",
        ),
    ],
)
def test_a_relevance_that_cannot_be(level, fn, message):
    with pytest.raises(ValueError, match=message):
        attach(level, pairwise=fn)


@pytest.mark.parametrize("level", [None, 0])
def test_a_relevance_that_is_not_symmetric(level, warnings_logged):
    attach(level)
    assert not warnings_logged
    attach(level, pairwise=lambda a, b: 1.0 + (a[..., -1] < b[..., -1]))
    assert len(warnings_logged) == 1
    assert "pool/train: the relevance is not symmetric: it is " in warnings_logged[0]


def test_the_records_that_are_tried_share_labels():
    """A fault that only a pair of a class has is detected among many classes."""
    records = create_records(3_000)
    records.labels[:] = np.random.default_rng(0).permutation(3_000)[:, None] // 2
    own = Own()
    own.attributes = lambda splits: [
        np.stack([r.labels[:, -1], np.arange(len(r))], axis=1) for r in splits
    ]
    # Not of a record and itself.
    own.pairwise = lambda a, b: np.where(
        (a[..., 0] == b[..., 0]) & (a[..., 1] != b[..., 1]), -1.0, 0.0
    )
    with pytest.raises(ValueError, match=r"is -1\.0; it must be finite"):
        relevance.attach(own, {"train": records})


def test_labels_of_few_bits_leave_the_category_whole():
    kind = relevance.WithinCategory(Own(), 0)
    records = create_records(600)
    records.labels[:, 0] = np.arange(600)
    for dtype in (bool, np.int8, np.uint8, np.float16, np.float64):
        kind.relevance.attributes = lambda splits, t=dtype: [np.ones((600, 1), t)]
        (attributes,) = kind.attributes([records])
        np.testing.assert_array_equal(attributes[:, 0], np.arange(600))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "hierarchy"},
            "'hierarchy' needs config.relevance.levels: relevance for each level, fr",
        ),
        (
            {"name": "same_class", "levels": (1.0,)},
            "levels is not an option of 'same_class'; its options are: none",
        ),
        (
            {"name": "attributes"},
            "needs config.relevance.weights: weight of each label",
        ),
        (
            {"name": "embedding", "kernel": "linear"},
            r"needs config.relevance.file: path of a file of vectors \(\.parquet",
        ),
        ({"name": "golden"}, "needs config.relevance.file: path of a .parquet that "),
        (
            {"name": "table", "file": "t.csv", "scale": 2.0},
            "scale is not an option of 'table'; its options are: file",
        ),
        (
            {"name": "embedding", "file": "v.npy", "kernel": "cosine", "scale": 2.0},
            r"config\.relevance\.scale has no effect on kernel='cosine', got 2\.0",
        ),
        (
            {"name": "embedding", "file": "v.npy", "kernel": "cosin"},
            r"config\.relevance\.kernel must be one of .*, got 'cosin'",
        ),
        (
            {"name": "embedding", "file": "v.npy", "scale": 0.0},
            r"config\.relevance\.scale must be above 0 and finite, got 0\.0",
        ),
        (
            {"name": "hierarchy", "levels": (1.0, 0.5)},
            r"config\.relevance\.levels must be .* not decreasing",
        ),
        ({"name": "attributes", "weights": {}}, r"config\.relevance\.weights must be"),
        ({"name": "table", "file": "t.txt"}, r"relevance\.file='t\.txt' is neither"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(UserError, match=message):
        relevance.create_relevance(**options)


def test_a_scale_of_one_is_the_default():
    kind = relevance.create_relevance("embedding", file="v.npy", kernel="linear")
    assert kind.scale == 1.0
    kind = relevance.create_relevance("embedding", file="v.npy", scale=2.0)
    assert kind.scale == 2.0
