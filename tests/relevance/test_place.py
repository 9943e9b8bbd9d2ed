"""Relevance by place against a loop over all pairs, and the draws of the sampler."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import errors, relevance
from deeprank_jax.data.records import Records
from deeprank_jax.relevance import place as place_lib
from deeprank_jax.relevance.totals import total_relevance
from deeprank_jax.sampling import TripletSampler, create_candidates


def create_tiles(num_images=3, num_rows=5, num_columns=7, stride=32, seed=None):
    grid = np.meshgrid(range(num_images), range(num_rows), range(num_columns))
    image, row, column = (x.ravel().astype(np.int32) for x in grid)
    row, column = row * stride + 16, column * stride + 16
    if seed is not None:
        rng = np.random.default_rng(seed)
        row, column = (rng.integers(0, 200, image.size).astype(np.int32) for _ in "ab")
    return Records(
        name="tiles/train",
        labels=image[:, None],
        level_names=("image",),
        label_names=(tuple(f"{i}.png" for i in range(num_images)),),
        read=lambda index: np.zeros((32, 32, 3), np.uint8),
        describe="tile {}".format,
        columns={"row": row, "column": column},
    )


def naive(records, radius, far_radius):
    """Relevance of all pairs `[N, N]`, by a loop in float64."""
    places = np.stack(
        [records.labels[:, 0], records.columns["row"], records.columns["column"]], 1
    ).tolist()
    values = np.zeros((len(places), len(places)))
    for i, (image, y, x) in enumerate(places):
        for j, (other, v, u) in enumerate(places):
            distance = np.hypot(y - v, x - u)
            if image != other or distance > far_radius:
                continue
            values[i, j] = 1.0
            if distance > radius:
                values[i, j] = (far_radius - distance) / (far_radius - radius)
    return values


@pytest.mark.parametrize(("radius", "far_radius"), [(32, 32), (46, 100), (40, 64)])
@pytest.mark.parametrize("seed", [None, 0])
def test_relevances_and_totals_are_those_of_a_loop(
    monkeypatch, radius, far_radius, seed
):
    monkeypatch.setattr(place_lib, "_BLOCK", 17)
    records = create_tiles(seed=seed)
    kind = relevance.Place(radius, far_radius)
    (attributes,) = kind.attributes([records])
    expected = naive(records, radius, far_radius)
    assert 0 < np.mean(expected) < 0.5
    assert ((expected > 0) & (expected < 1)).any() == (far_radius > radius)
    for array in (attributes, jnp.asarray(attributes)):
        block = kind.pairwise(array[:, None], array[None])
        np.testing.assert_allclose(block, expected, atol=1e-6)
    totals = expected.sum(axis=1) - 1
    np.testing.assert_allclose(kind.total(attributes), totals, atol=1e-9)
    for category in (records.labels[:, 0], np.zeros(len(records), int)):
        found = total_relevance(kind, attributes, category)
        np.testing.assert_allclose(found, totals, atol=1e-9)


@pytest.mark.parametrize("category_level", [None, 0])
def test_the_relevance_passes_the_check_of_all_kinds(category_level):
    kind = relevance.create_relevance(
        "place", category_level=category_level, radius=40.0, far_radius=80.0
    )
    records = relevance.attach(kind, {"train": create_tiles()})["train"]
    block = kind.pairwise(records.attributes[:, None], records.attributes[None])
    np.testing.assert_allclose(block, naive(records, 40, 80), atol=1e-6)


def test_the_sampler_draws_near_positives_and_less_relevant_negatives():
    kind = relevance.create_relevance(
        "place", category_level=0, radius=40.0, far_radius=80.0
    )
    records = relevance.attach(kind, {"train": create_tiles()})["train"]
    candidates = create_candidates(records, kind, 0)
    sampler = TripletSampler(
        candidates, kind, seed=0, min_relevance_gap=0.25, out_of_class=0.3,
        min_positive_relevance=1.0,
    )  # fmt: skip
    triplets = sampler.sample(0, 2000).indices
    values = naive(records, 40, 80)
    anchor, positive, negative = triplets.T
    assert np.all(anchor != positive)
    assert set(values[anchor, positive]) == {1.0}
    assert np.all(values[anchor, negative] <= 0.75 + 1e-6)
    is_other = records.labels[anchor, 0] != records.labels[negative, 0]
    assert is_other.mean() == pytest.approx(0.3, abs=0.05)
    # Within the image, negatives weigh as much as their relevance.
    assert np.all(values[anchor, negative][~is_other] > 0)


def test_a_radius_below_the_stride_leaves_no_positive():
    message = r"radius=31 leaves no similar tiles, which are 32 pixels apart or more; "
    with pytest.raises(errors.DataError, match=message + "raise the radius"):
        relevance.Place(31).attributes([create_tiles()])
    relevance.Place(32).attributes([create_tiles()])
    alone = create_tiles(num_rows=1, num_columns=1)
    with pytest.raises(errors.DataError, match="of which no two are of one image"):
        relevance.Place(31).attributes([alone])


def test_records_without_places_are_refused():
    records = create_tiles()
    for other in (
        dict(columns={"row": records.columns["row"]}),
        dict(level_names=("label",)),
    ):
        values = {x: getattr(records, x) for x in records.__dataclass_fields__} | other
        with pytest.raises(errors.DataError, match="no place in an image; the relev"):
            relevance.Place(40).attributes([Records(**values)])


def test_places_beyond_float32_are_refused():
    records = create_tiles(stride=2**23)
    with pytest.raises(errors.DataError, match="beyond 16,777,216; read a higher"):
        relevance.Place(2.0**24).attributes([records])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(radius=0), "radius must be above 0 and finite, got 0"),
        (dict(radius=float("nan")), "radius must be above 0"),
        (dict(radius=40, far_radius=39), "far_radius must be at least radius=40"),
        (dict(radius=40, far_radius=float("inf")), "far_radius must be at least"),
    ],
)
def test_radii_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        relevance.Place(**options)
