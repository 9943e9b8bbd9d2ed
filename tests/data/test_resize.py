"""Resizing without OpenCV agrees with OpenCV."""

import io

import cv2
import numpy as np
from PIL import Image
import pytest

from deeprank_jax.data import decode, resize


def photo(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 6 + 2, width // 5 + 2, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    noise = rng.integers(-9, 10, smooth.shape)
    return np.clip(smooth.astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def no_opencv(monkeypatch):
    monkeypatch.setattr(resize, "HAS_OPENCV", False)
    monkeypatch.setattr(decode, "HAS_OPENCV", False)


@pytest.mark.parametrize("size", [(96, 64), (48, 32), (37, 61), (7, 5), (1, 1)])
def test_shrinking_equals_opencv(no_opencv, size):
    image = photo(192, 128)
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    difference = np.abs(resize.resize(image, *size).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("size", [(50, 40), (41, 80), (123, 97)])
def test_growing_is_within_one_of_opencv(no_opencv, size):
    image = photo(41, 33)
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
    difference = np.abs(resize.resize(image, *size).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1


@pytest.mark.parametrize("size", [(30, 90), (90, 30), (41, 33)])
def test_one_axis_may_grow_while_the_other_shrinks(no_opencv, monkeypatch, size):
    image = photo(41, 33)
    resized = resize.resize(image, *size)
    assert resized.shape == (*size, 3)
    assert resized.dtype == np.uint8
    assert not np.shares_memory(resized, image)
    monkeypatch.setattr(resize, "HAS_OPENCV", True)
    difference = np.abs(resized.astype(int) - resize.resize(image, *size))
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        ("PNG", "L"),
        ("PNG", "P"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("JPEG", "L"),
        ("JPEG", "RGB"),
    ],
)
def test_files_decode_as_with_opencv(monkeypatch, form, mode):
    file = io.BytesIO()
    Image.fromarray(photo(50, 70)).convert(mode).save(file, form)
    expected = decode.decode_image(file.getvalue())
    monkeypatch.setattr(decode, "HAS_OPENCV", False)
    monkeypatch.setattr(decode, "cv2", None)
    np.testing.assert_array_equal(decode.decode_image(file.getvalue()), expected)
