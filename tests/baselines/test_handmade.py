"""Descriptors of all splits are computed once, and fitted to training images alone."""

import numpy as np
import pytest

from deeprank_jax import descriptors, errors
from deeprank_jax.baselines import handmade
from deeprank_jax.baselines.systems import rows_of, unit_rows
from deeprank_jax.data.records import Records

SIZES = {"train": 9, "validation": 0, "test": 5}


def create_splits():
    return {
        name: Records(
            name=name,
            labels=np.zeros((size, 1), np.int32),
            level_names=("class",),
            label_names=(("a",),),
            read=lambda index: b"",
            describe=lambda index, name=name: f"{name}/{index}",
        )
        for name, size in SIZES.items()
    }


class Images:
    """Random images of which record 1 of each split is bad."""

    def __init__(self):
        self.loaded = []

    def __call__(self, split):
        self.loaded.append(split)
        rng = np.random.default_rng(len(split))
        images = rng.integers(0, 256, (SIZES[split], 16, 16, 3), np.uint8)
        ok = np.arange(len(images)) != 1
        images[~ok] = 0
        return images, ok


@pytest.fixture
def fitted(monkeypatch):
    """A learned descriptor: the mean of an image less that of those it is fitted to."""
    calls = []

    class Learner:
        title, version, is_learned = "mean", 1, True

        def fit(self, images, *, seed, workers):
            calls.append((images, seed))
            middle = images.mean()
            return lambda x: (x.mean(axis=(1, 2)) - middle).astype(np.float32)

    monkeypatch.setitem(descriptors.DESCRIPTORS._kinds, "learned", Learner)
    return calls


def describe(load, folder=None, names=("pixels", "learned"), **options):
    options = dict(image_size=16, fit="crop", folder=folder, workers=2) | options
    return handmade.describe_all(create_splits(), load, names, **options)


def test_rows_are_the_records_of_all_splits_in_turn(fitted):
    load = Images()
    found = describe(load)
    images, ok = map(np.concatenate, zip(*map(Images(), SIZES), strict=True))
    assert [*found] == ["pixels", "learned"]
    np.testing.assert_array_equal(found["pixels"].ok, ok)
    expected = descriptors.pixels(images)
    expected[~ok] = 0.0
    np.testing.assert_array_equal(found["pixels"].embeddings, expected)
    assert sorted(load.loaded) == sorted(SIZES)
    ((seen, seed),) = fitted
    train, train_ok = Images()("train")
    np.testing.assert_array_equal(seen, train[train_ok])
    assert seed == 0
    expected = (images.mean(axis=(1, 2)) - seen.mean()).astype(np.float32)
    expected[~ok] = 0.0
    np.testing.assert_array_equal(found["learned"].embeddings, expected)


def test_what_is_kept_is_not_computed_again(fitted, tmp_path):
    first, again = Images(), Images()
    one, two = describe(first, tmp_path), describe(again, tmp_path)
    assert (first.loaded != [], again.loaded, len(fitted)) == (True, [], 1)
    for name in one:
        np.testing.assert_array_equal(one[name].embeddings, two[name].embeddings)
        np.testing.assert_array_equal(one[name].ok, two[name].ok)
    describe(again, tmp_path, seed=1)  # Which only what is learned depends on.
    assert len(fitted) == 2
    describe(again, tmp_path, fit="pad", names=["pixels"])
    assert sorted(again.loaded) == sorted([*SIZES, *SIZES])


def test_the_bar_sees_every_piece(monkeypatch):
    monkeypatch.setattr(handmade, "_BATCH", 4)
    told = {}

    def progress(batches, text):
        told[text] = len(batches)
        return batches

    describe(Images(), names=["pixels"], progress=progress)
    assert told == {"pixels, train": 3, "pixels, validation": 1, "pixels, test": 2}


def test_an_unknown_name_is_refused():
    with pytest.raises(errors.ConfigError, match=r"descriptors\.sifd is not known"):
        describe(Images(), names=["pixels", "sifd"])


def test_rows_of_splits():
    assert rows_of(create_splits()) == {
        "train": slice(0, 9),
        "validation": slice(9, 9),
        "test": slice(9, 14),
    }


def test_rows_of_no_length_stay_so():
    x = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(x, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
