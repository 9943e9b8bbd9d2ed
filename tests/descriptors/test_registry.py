"""Descriptors as plug-ins."""

import numpy as np
import pytest

from deeprank_jax import descriptors, errors


@pytest.mark.parametrize("name", sorted(descriptors.DESCRIPTORS))
def test_each_descriptor_publishes_title_and_version(name):
    descriptor = descriptors.create_descriptor(name)
    assert descriptor.version >= 1
    assert len(descriptor.title) > 5
    assert descriptor.is_learned == (name in {"fisher", "sift_words", "texton_pyramid"})


def test_a_function_is_registered_as_a_descriptor(monkeypatch):
    kinds = descriptors.DESCRIPTORS._kinds
    monkeypatch.setattr(descriptors.DESCRIPTORS, "_kinds", dict(kinds))

    @descriptors.register_descriptor("mean_colour")
    def mean_colour(images):
        return images.mean(axis=(1, 2)).astype(np.float32)

    images = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    rows = descriptors.compute(["mean_colour"], images)["mean_colour"]
    np.testing.assert_array_equal(rows, mean_colour(images))
    assert descriptors.create_descriptor("mean_colour").title == "mean colour"
    assert "mean_colour" in descriptors.hand_made_names()


def test_a_class_without_fit_is_refused():
    with pytest.raises(errors.ConfigError, match=r"has no method fit\(\)"):
        descriptors.register_descriptor("mine")(dict)


def test_an_option_that_a_descriptor_lacks_is_named():
    with pytest.raises(errors.ConfigError, match=r"its options are: num_words"):
        descriptors.DESCRIPTORS.create({"name": "sift_words", "words": 3})
