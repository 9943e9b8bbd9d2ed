"""Copies are alike in all their details, and other images are not."""

import itertools

import cv2
import numpy as np
import pytest

from deeprank_jax.descriptors import likeness


def drawing(rng):
    image = np.full((300, 300, 3), 255, np.uint8)
    for _ in range(rng.integers(2, 6)):
        a, b = rng.integers(60, 240, (2, 2)).tolist()
        if rng.random() < 0.5:
            cv2.line(image, a, b, (0, 0, 0), 3)
        else:
            cv2.circle(image, a, int(rng.integers(15, 60)), (0, 0, 0), 3)
    return image


def page(rng):
    """Lines of words at the same places on every page."""
    image = np.full((640, 480, 3), 255, np.uint8)
    for y in range(60, 600, 20):
        text = "".join(rng.choice(list("abcdefghiklmnoprstuw   "), 44))
        cv2.putText(image, text, (40, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1)
    return image


def wide(rng):
    """Pictures of one middle, which is all that a square crop shows."""
    image = rng.integers(0, 256, (6, 48, 3), np.uint8)
    image[:, 20:28] = np.arange(48, dtype=np.uint8).reshape(6, 8, 1) * 5
    return cv2.resize(image, (960, 120), interpolation=cv2.INTER_CUBIC)


def photo(rng):
    coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
    return cv2.resize(coarse, (400, 300), interpolation=cv2.INTER_CUBIC)


KINDS = {"drawings": drawing, "pages": page, "wide": wide, "photos": photo}


def is_copy(one, other):
    pair = {0: likeness.sketch(one), 1: likeness.sketch(other)}
    return likeness.Comparer(pair.get).is_copy(0, 1)


def degrade(image, scale, quality):
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


@pytest.mark.parametrize("create", KINDS.values(), ids=KINDS)
def test_only_copies_are_alike(create):
    images = [create(np.random.default_rng(seed)) for seed in range(14)]
    comparer = likeness.Comparer(list(map(likeness.sketch, images)).__getitem__)
    pairs = itertools.combinations(range(len(images)), 2)
    assert not any(comparer.is_copy(*pair) for pair in pairs)
    for scale, quality in ((1.0, 75), (0.75, 60), (0.5, 60), (1.0, 30), (1.5, 90)):
        assert all(is_copy(image, degrade(image, scale, quality)) for image in images)


def test_one_other_paragraph_is_seen():
    rng = np.random.default_rng(0)
    image = page(rng)
    changed = image.copy()
    changed[165:245] = page(rng)[165:245]
    assert not is_copy(image, changed)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (5, 7), (16, 16)])
def test_small_images_are_compared(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert is_copy(image, image)
    flat = np.full_like(image, 128)
    assert is_copy(flat, flat)
