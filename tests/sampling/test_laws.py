"""The laws of anchors, positives and negatives against exact enumeration."""

import dataclasses
import tracemalloc

from helpers.samplers import create_sampler
import numpy as np
import pytest
from scipy import stats

from deeprank_jax import relevance
from deeprank_jax.relevance import totals as totals_lib
from deeprank_jax.sampling import TripletSampler, count_candidates, counter_rng
from tools.benchmark.exact_laws import chi_square, enumerate_laws


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Relevance by a table; the last attribute is the record's own index."""

    table: np.ndarray

    def pairwise(self, a, b):
        return self.table[a[..., -1], b[..., -1]]

    def total(self, attributes):
        block = self.pairwise(attributes[:, None], attributes[None])
        return block.sum(axis=1) - np.diagonal(block)


def uneven_categories(seed, sizes=(10, 8, 6)):
    """Records whose relevances span decades, with some that nobody is relevant to."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    table = np.random.default_rng(seed).lognormal(size=(len(label),) * 2)
    table = np.sqrt(table * table.T)
    table[3, :] = table[:, 3] = 0.0
    table[1, 2] = table[2, 1] = 0.0
    attributes = np.stack([label, np.arange(len(label))], axis=1).astype(np.int32)
    return attributes, Pairs(table)


def check_laws(attributes, kind, drawn, *, cap=1.0, gap, out_of_class=0.2, **mode):
    """Compares with the enumeration: anchors, positives, both kinds of negatives."""
    positives, inside, outside = enumerate_laws(
        attributes,
        attributes[:, 0],
        kind,
        cap=cap,
        gap=gap,
        out_of_class=out_of_class,
        **mode,
    )
    np.testing.assert_allclose([positives.sum(), inside.sum() + outside.sum()], 1.0)
    indices, in_class = drawn.indices, drawn.in_class
    assert chi_square(indices[:, :1], positives.sum(axis=1)) > 1e-3
    assert chi_square(indices[:, :2], positives) > 1e-3
    assert chi_square(indices[in_class], inside) > 1e-3
    for law, where in (inside, in_class), (outside, ~in_class):
        assert chi_square(indices[where][:, [0, 2]], law.sum(axis=1)) > 1e-3
    share = stats.binomtest(int(in_class.sum()), len(indices), inside.sum())
    assert share.pvalue > 1e-3
    return outside.sum()


@pytest.mark.parametrize("capacity", [10, 1000])
def test_whole_categories_follow_the_equations(capacity):
    attributes, kind = uneven_categories(seed=0)
    cap, gap, out_of_class = 1.5, 0.4, 0.3
    assert 0.1 < np.mean(kind.table > cap) < 0.9  # T_p binds for some.
    sampler = create_sampler(
        attributes,
        kind,
        seed=1,
        capacity=capacity,
        positive_cap=cap,
        min_relevance_gap=gap,
        out_of_class=out_of_class,
    )
    assert sampler.candidates.num_without_positive == 1
    drawn = sampler.sample(0, 100_000)
    expected = check_laws(
        attributes, kind, drawn, cap=cap, gap=gap, out_of_class=out_of_class
    )
    # Those that fell back are what lies above the ratio asked for.
    fallen = drawn.counts["no_in_class_negative"]
    assert fallen > 1000
    assert fallen / 100_000 == pytest.approx(expected - 0.3, abs=0.01)
    assert drawn.counts["no_positive"] == drawn.counts["repeated"] == 0


@pytest.mark.parametrize("mode", ["importance", "uniform"])
@pytest.mark.parametrize(
    "sizes", [(5, 2, 4, 3, 2, 9), (70, 5)], ids=["padded", "large_and_small"]
)
def test_any_sizes_of_categories_follow_the_equations(sizes, mode):
    """Small ones share padded blocks: the law must not see the padding."""
    attributes, kind = uneven_categories(seed=3, sizes=sizes)
    sampler = create_sampler(attributes, kind, seed=2, min_relevance_gap=0.1, mode=mode)
    drawn = sampler.sample(5, 50_000)
    check_laws(attributes, kind, drawn, gap=0.1, mode=mode)


@pytest.mark.parametrize("mode", ["importance", "uniform"])
@pytest.mark.parametrize("levels", [(0.1, 0.4, 1.0), (0.0, 0.4, 1.0)])
@pytest.mark.parametrize("cap", [0.3, 2.0])
def test_hierarchies_follow_the_equations(levels, mode, cap):
    """They are drawn ring by ring, without a comparison of pairs."""
    fine = np.random.default_rng(0).integers(0, 12, 40)
    attributes = np.stack([fine // 6, fine // 3, fine], axis=1).astype(np.int32)
    kind = relevance.Hierarchy(levels)
    sampler = create_sampler(
        attributes, kind, seed=1, mode=mode, positive_cap=cap, min_relevance_gap=0.2
    )
    drawn = sampler.sample(0, 100_000)
    check_laws(attributes, kind, drawn, cap=cap, gap=0.2, mode=mode)
    expected = kind.pairwise(attributes[drawn.indices[:, :1]], drawn.attributes[:, 1:])
    np.testing.assert_array_equal(drawn.relevance, expected)


@pytest.mark.slow
def test_small_buffers_keep_the_laws_over_many_passes():
    """A new pass at every step: 140 records, of which 70 can be drawn."""
    popularity = np.random.default_rng(0).lognormal(size=140)
    attributes = np.stack([np.zeros(140, int), np.arange(140)], axis=1)
    kind = Pairs(np.outer(popularity, popularity))
    sampler = create_sampler(
        attributes,
        kind,
        seed=3,
        capacity=70,
        records_per_step=140,
        positive_cap=np.inf,
        out_of_class=0.0,
    )
    steps, batch = 2000, 50
    pairs, held = np.zeros((140, 140)), np.zeros(140)
    for step in range(steps):
        np.add.at(pairs, tuple(sampler.sample(step, batch).indices[:, :2].T), 1)
        held[sampler.seek(step).index] += 1
    anchors = pairs.sum(axis=1)
    totals = kind.table.sum(axis=1) - np.diagonal(kind.table)
    law = totals / totals.sum()
    corrected = 0.5 * np.abs(anchors / anchors.sum() - law).sum()
    uncorrected = 0.5 * np.abs(held / held.sum() - law).sum()
    assert corrected < 0.02
    assert uncorrected > 0.1
    # The positives of the most frequent anchor.
    top = np.argmax(totals)
    expected = np.where(np.arange(140) == top, 0.0, kind.table[top] / totals[top])
    drawn = pairs[top] / pairs[top].sum()
    assert 0.5 * np.abs(drawn - expected).sum() < 0.08


def test_whole_numbers_are_relevances_too():
    """A cap of a half is not rounded to 0."""

    class Shared(Pairs):
        def pairwise(self, a, b):
            return (self.table[a[..., -1], b[..., -1]]).astype(np.int64)

    attributes, kind = uneven_categories(seed=5)
    counted = Shared(np.round(2 * kind.table))
    assert set(np.unique(counted.table)) >= {0, 1, 2}
    sampler = create_sampler(
        attributes, counted, seed=0, positive_cap=1.5, min_relevance_gap=0.5
    )
    drawn = sampler.sample(0, 100_000)
    check_laws(attributes, counted, drawn, cap=1.5, gap=0.5)


def test_the_gap_and_the_cap_hold_in_every_triplet():
    levels = (0.1, 0.3, 1.0)
    label = np.random.default_rng(0).integers(0, 12, 300)
    attributes = np.stack([label // 6, label // 3, label], axis=1).astype(np.int32)
    sampler = create_sampler(
        attributes,
        relevance.Hierarchy(levels),
        seed=0,
        min_relevance_gap=0.2,  # Just what lies between two levels, up to rounding.
        positive_cap=0.1,
    )
    drawn = sampler.sample(0, 20_000)
    anchor, positive, negative = drawn.indices.T
    assert (anchor != positive).all()
    assert (anchor != negative).all()
    assert (positive != negative).all()
    gap = drawn.relevance[:, 0] - drawn.relevance[:, 1]
    assert gap[drawn.in_class].min() == pytest.approx(0.2)
    same = attributes[anchor, 0] == attributes[negative, 0]
    np.testing.assert_array_equal(same, drawn.in_class)
    assert (drawn.relevance[~drawn.in_class, 1] == 0).all()
    # With T_p at the lowest level positives are uniform over the category.
    sizes = np.bincount(attributes[:, 0])
    expected = np.mean(
        [(np.sum(attributes[:, 2] == attributes[a, 2]) - 1) for a in anchor]
        / (sizes[attributes[anchor, 0]] - 1)
    )
    share = np.mean(drawn.relevance[:, 0] == 1.0)
    assert share == pytest.approx(expected, abs=0.01)


def test_wide_attributes_of_small_categories_take_little_memory():
    """They are gathered, a row of a category for each anchor."""
    width, size = 1024, 2000
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(size, width)).astype(np.float32)

    class Inner:
        def attributes(self, splits):
            return []

        def pairwise(self, a, b):
            return np.maximum(np.matmul(b, np.swapaxes(a, -1, -2))[..., 0], 0.0)

    candidates = count_candidates(vectors, np.arange(size) // 50, np.ones(size))
    sampler = TripletSampler(candidates, Inner(), seed=0)
    sampler.seek(0)
    tracemalloc.start()
    sampler.sample(0, 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * vectors.nbytes


@dataclasses.dataclass(frozen=True)
class Compared:
    """The same relevance for a sampler that can only compare two records."""

    inner: relevance.Hierarchy

    def pairwise(self, a, b):
        return self.inner.pairwise(a, b)

    def total(self, attributes):
        return self.inner.total(attributes)


CLUSTERED = relevance.Hierarchy((0.001, 0.02, 1.0))


def clustered_labels(num_categories=3):
    """Records with three to nine strong positives, among 250 of their category."""
    classes = np.arange(num_categories * 36)
    fine = np.repeat(classes, 4 + 3 * (classes % 3))
    return np.stack([fine // 36, fine // 6, fine], axis=1).astype(np.int32)


def positive_law(attributes, kind, *, cap=1.0, least=0.0, mode="importance"):
    """Returns the law of anchors with their positives, `[N, N]`."""
    pairs = kind.pairwise(attributes[:, None], attributes[None])
    pairs = pairs * (attributes[:, None, 0] == attributes[None, :, 0])
    np.fill_diagonal(pairs, 0.0)
    anchors, weights = pairs.sum(axis=1), np.minimum(pairs, cap)
    if mode == "uniform":
        anchors, weights = (anchors > 0) * 1.0, (pairs > 0) * 1.0
    weights = weights * (pairs >= least)
    sums = weights.sum(axis=1, keepdims=True)
    anchors = anchors * (sums[:, 0] > 0)
    return anchors[:, None] / anchors.sum() * weights / np.where(sums > 0, sums, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [CLUSTERED, Compared(CLUSTERED)], ids=["rings", "dense"]
)
@pytest.mark.parametrize(
    ("capacity", "num_shards", "options"),
    [
        (64, 1, {}),
        (4096, 8, {}),
        (64, 2, {}),
        (64, 1, dict(mode="uniform")),
        (64, 1, dict(cap=0.01)),
        (4096, 4, dict(least=0.5)),
    ],
    ids=["small", "8 shards", "2 small shards", "uniform", "capped", "least"],
)
def test_strong_positives_keep_their_share_in_small_buffers_and_shards(
    kind, capacity, num_shards, options
):
    attributes = clustered_labels()
    names = dict(cap="positive_cap", least="min_positive_relevance", mode="mode")
    samplers = [
        create_sampler(
            attributes,
            kind,
            seed=3,
            capacity=capacity,
            records_per_step=len(attributes),
            shard=shard,
            num_shards=num_shards,
            **{names[key]: value for key, value in options.items()},
        )
        for shard in range(num_shards)
    ]
    counts = np.zeros((len(attributes),) * 2)
    for step in range(200):
        for sampler in samplers:
            drawn = sampler.sample(step, 300 // num_shards).indices
            np.add.at(counts, tuple(drawn[:, :2].T), 1)
    law, share = positive_law(attributes, CLUSTERED, **options), counts / counts.sum()
    depth = (attributes[:, None] == attributes[None]).sum(axis=-1)
    by_depth = [np.bincount(depth.ravel(), x.ravel()) for x in (law, share)]
    np.testing.assert_allclose(*by_depth, atol=0.012)
    anchors = [np.bincount(attributes[:, 2], x.sum(axis=1)) for x in (law, share)]
    assert 0.5 * np.abs(np.subtract(*anchors)).sum() < 0.06


def strong_share(table, in_class):
    """Returns the share of the strongest positives among all draws from a table."""
    weights = in_class._mass * in_class._pull
    sums = weights.sum(axis=1)
    share = np.divide(weights[:, -1], sums, out=np.zeros(len(sums)), where=sums > 0)
    return float(np.average(share, weights=table.anchor_weights))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capacity", "num_shards", "largest", "before"),
    [(20, 2, 0.005, 0.006), (8, 1, 0.03, 0.1)],
)
def test_few_anchors_keep_the_share_of_strong_positives(
    capacity, num_shards, largest, before
):
    """Their share was less by `before` when all tables were drawn from."""
    attributes = clustered_labels(num_categories=2)
    law = positive_law(attributes, CLUSTERED)
    depth = (attributes[:, None] == attributes[None]).sum(axis=-1)
    exact = float(law[depth == 3].sum())
    shares = {}
    for version in (4, 5):
        values = []
        for shard in range(num_shards):
            sampler = create_sampler(
                attributes,
                CLUSTERED,
                seed=5,
                capacity=capacity,
                records_per_step=len(attributes),
                shard=shard,
                num_shards=num_shards,
            )
            sampler.continue_as(version)
            for step in range(1, 1 + 800 // num_shards):
                table = sampler.seek(step)
                assert table.num_effective_anchors() < 60
                values.append(strong_share(table, sampler.draws.in_class))
        shares[version] = float(np.mean(values))
    assert shares[5] == pytest.approx(exact, abs=largest)
    assert shares[4] < exact - before


def test_tables_of_few_anchors_are_a_function_of_seed_and_step():
    attributes = clustered_labels()
    options = dict(seed=5, capacity=20, records_per_step=len(attributes) // 2)
    running = create_sampler(attributes, CLUSTERED, **options)
    indices = [running.sample(step, 50).indices for step in range(40)]
    epochs = [running.seek(step).index.tolist() for step in range(40)]
    assert 1 < sum(a == b for a, b in zip(epochs[2::2], epochs[4::2], strict=False))
    for step in (0, 1, 2, 39, 17, 18, 30, 5, 1):
        drawn = running.sample(step, 50)
        np.testing.assert_array_equal(drawn.indices, indices[step])
        fresh = create_sampler(attributes, CLUSTERED, **options).sample(step, 50)
        np.testing.assert_array_equal(fresh.indices, indices[step])
        assert fresh.gauges == drawn.gauges
        assert 0 <= drawn.gauges["buffer_age"]


def test_tables_of_many_anchors_are_drawn_from_in_turn():
    attributes = clustered_labels(num_categories=12)
    options = dict(seed=5, capacity=128, records_per_step=len(attributes))
    new, old = (create_sampler(attributes, CLUSTERED, **options) for _ in range(2))
    old.continue_as(4)
    for step in range(6):
        assert new.seek(step).num_effective_anchors() > 256
        np.testing.assert_array_equal(
            new.sample(step, 50).indices, old.sample(step, 50).indices
        )


def test_an_older_run_goes_on_by_its_law():
    attributes = clustered_labels()
    options = dict(seed=3, capacity=20, records_per_step=len(attributes))
    new, old = (create_sampler(attributes, CLUSTERED, **options) for _ in range(2))
    assert new.state(0)["version"] == 5
    before = new.sample(4, 500)
    old.sample(4, 500)
    old.continue_as(2)
    assert old.state(0)["version"] == 2
    drawn = old.sample(4, 500)
    share = [np.mean(x.relevance[:, 0] == 1.0) for x in (before, drawn)]
    assert share[1] < share[0] / 2
    old.continue_as(1)
    assert old.state(0)["version"] == 2


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_a_run_goes_on_in_the_order_of_its_records(monkeypatch, version):
    """Few records come in another order since version 4."""
    permute, rounds = counter_rng.permute, set()

    def recording(*args, num_rounds):
        rounds.add(num_rounds)
        return permute(*args, num_rounds=num_rounds)

    monkeypatch.setattr(counter_rng, "permute", recording)
    sampler = create_sampler(clustered_labels(), CLUSTERED, seed=3, capacity=4)
    sampler.continue_as(version)
    sampler.sample(0, 8)
    assert rounds == {None if version >= 4 else counter_rng.ROUNDS}
    assert (sampler._positive_totals is None) == (version == 2)


def test_whole_categories_are_drawn_as_before_the_weight_of_pairs():
    attributes = clustered_labels()
    new, old = (create_sampler(attributes, CLUSTERED, seed=3) for _ in range(2))
    old.continue_as(2)
    np.testing.assert_array_equal(
        new.sample(7, 500).indices, old.sample(7, 500).indices
    )


def test_sums_that_could_only_be_estimated_weigh_no_pairs(monkeypatch):
    """From few pairs those of most records with few positives would be 0."""
    monkeypatch.setattr(totals_lib, "_LARGEST_EXACT", 100)
    attributes = clustered_labels()
    create = lambda **options: create_sampler(
        attributes, Compared(CLUSTERED), seed=3, capacity=64, **options
    )
    new, old = (create(min_positive_relevance=0.5) for _ in range(2))
    old.continue_as(2)
    np.testing.assert_array_equal(
        new.sample(0, 200).indices, old.sample(0, 200).indices
    )
    # Without a least relevance the total relevances serve.
    assert np.mean(create().sample(0, 2000).relevance[:, 0] == 1.0) > 0.7


def test_compared_sums_are_kept_by_what_they_depend_on(tmp_path):
    for options, num in (
        (dict(min_relevance_gap=0.1), 1),
        (dict(out_of_class=0.5), 1),
        (dict(positive_cap=0.5), 2),
        (dict(min_positive_relevance=0.5), 3),
    ):
        create_sampler(
            clustered_labels(),
            Compared(CLUSTERED),
            seed=3,
            capacity=64,
            cache=tmp_path,
            **options,
        )
        assert len(list(tmp_path.iterdir())) == num
