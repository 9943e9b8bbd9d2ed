import io

from helpers.digits import NUM_ORIGINALS
import ml_collections
import numpy as np
from PIL import Image
import pytest
from sklearn import datasets

from deeprank_jax import data, errors
from deeprank_jax.data import splits
from deeprank_jax.data.named_labels import find_labels
from deeprank_jax.data.sources import digits_builder
from deeprank_jax.inference.sources import open_source


@pytest.fixture(scope="module")
def records(few_digits):
    config = ml_collections.ConfigDict({"source": {"name": "digits"}})
    config.dir = str(few_digits)
    return data.create_records(config)


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded))).astype(int)


def column_of(part, name):
    labels = find_labels(part, name, "option")
    return np.array([int(x) for x in labels.names])[labels.values]


def test_originals_are_those_of_the_package():
    originals, digits = digits_builder.read_originals()
    expected = datasets.load_digits()
    np.testing.assert_array_equal(digits, expected.target)
    np.testing.assert_allclose(originals, expected.images * 255 / 16, atol=0.5)
    assert originals.dtype == np.uint8


def test_every_original_is_there_once_in_each_size_and_in_one_split(monkeypatch):
    monkeypatch.setattr(digits_builder, "_draw_digit", lambda *arguments: b"")
    parts = {x: dict(digits_builder.generate_digits(x)) for x in splits.SPLITS}
    originals = [{x["original"] for x in part.values()} for part in parts.values()]
    assert [len(x) for x in originals] == [1078, 182, 537]
    assert set.union(*originals) == set(range(1797))  # As many: they share none.
    assert all(
        len(part) == 3 * len(x)
        for part, x in zip(parts.values(), originals, strict=True)
    )
    for part in parts.values():
        assert {x["digit"] for x in part.values()} == set(range(10))
        for x in part.values():
            assert x["parity"] == ("even", "odd")[x["digit"] % 2]
        # Each size of each original.
        assert len({(x["original"], x["size"]) for x in part.values()}) == len(part)


def test_records_have_parity_digit_size_and_original(records):
    assert sum(map(len, records.values())) == 3 * NUM_ORIGINALS
    assert records["test"].name == "digits/test (seen classes)"
    _, digits = digits_builder.read_originals()
    for part in records.values():
        assert part.level_names == ("parity", "digit")
        original = column_of(part, "original")
        np.testing.assert_array_equal(column_of(part, "digit"), digits[original])
        parity = find_labels(part, "parity", "option")
        assert parity.names == ("even", "odd")
        np.testing.assert_array_equal(parity.values, digits[original] % 2)
        assert np.unique(original, return_counts=True)[1].tolist() == [3] * (
            len(part) // 3
        )
        assert set(column_of(part, "size")) == set(digits_builder.SIZES)


def test_a_digit_has_its_size_and_lies_within_the_image(records):
    part = records["train"]
    sizes, places = column_of(part, "size"), set()
    originals, _ = digits_builder.read_originals()
    for index in range(len(part)):
        image = pixels(part.read(index))
        assert image.shape == (32, 32)
        rows, columns = (np.flatnonzero(image.max(axis=axis)) for axis in (1, 0))
        assert np.ptp(rows) < sizes[index]
        assert np.ptp(columns) < sizes[index]
        places.add((rows[0], columns[0]))
        # The square of its size that holds the digit has as much white as the original.
        original = originals[column_of(part, "original")[index]]
        white = image.sum() / sizes[index] ** 2
        assert white == pytest.approx(original.mean(), rel=0.1)
    assert len(places) > 50


def test_images_are_the_same_each_time_whatever_is_drawn_before(records):
    part = records["validation"]
    originals, _ = digits_builder.read_originals()
    for index in (0, len(part) - 1):
        number, size = (column_of(part, x)[index] for x in ("original", "size"))
        rng = np.random.default_rng([number, size])
        again = digits_builder._draw_digit(originals[number], int(size), rng)
        assert again == part.read(index)


def test_commands_read_it_by_name(few_digits):
    images = open_source("tfds:digits/test", data_dir=str(few_digits))
    assert len(images) > 100
    assert images.label_name(0) in set("0123456789")


def test_a_package_without_its_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(digits_builder, "package_folder", lambda *arguments: tmp_path)
    with pytest.raises(errors.DataError, match=r"digits\.csv\.gz: no such file; it be"):
        digits_builder.read_originals()
