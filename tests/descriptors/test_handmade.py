"""Each descriptor against its definition, written out the slow way."""

import math

import numpy as np
import pytest
from skimage import color

from deeprank_jax import descriptors, errors


def random_images(num=3, size=32, seed=0):
    rng = np.random.default_rng(seed)
    # Blocks of 4, as in noise alone all directions and patterns are equally many.
    coarse = rng.integers(0, 256, (num, size // 4, size // 4, 3))
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    images += rng.integers(-20, 21, images.shape)
    return np.clip(images, 0, 255).astype(np.uint8)


def plain(rgb, size=32):
    return np.broadcast_to(np.uint8(rgb), (1, size, size, 3))


@pytest.mark.parametrize("name", descriptors.hand_made_names())
def test_a_row_is_a_function_of_its_image(name):
    images = random_images(5)
    found = descriptors.compute([name], images)[name]
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == 5
    shared = descriptors.compute([name], images[::-1], workers=3)[name][::-1]
    np.testing.assert_array_equal(shared, found)
    none = descriptors.compute([name], images[:0], workers=3)[name]
    assert none.shape == (0, found.shape[1])


@pytest.mark.parametrize("name", descriptors.hand_made_names())
def test_other_images_are_refused(name):
    with pytest.raises(ValueError, match=r"uint8 \[N, H, W, 3\], got float32"):
        descriptors.compute([name], np.zeros((2, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(2, 32, 32, 4\)"):
        descriptors.compute([name], np.zeros((2, 32, 32, 4), np.uint8))


def test_unknown_names_are_refused():
    message = (
        r"descriptors\.hgo is not known \(did you mean 'hog'\?\); choose one of fi"
    )
    with pytest.raises(errors.ConfigError, match=message):
        descriptors.compute(["lbp", "hgo"], random_images())
    with pytest.raises(
        errors.ConfigError, match=r"'fisher' is learned .* ones: hog, lab"
    ):
        descriptors.compute(["hog", "fisher"], random_images())


def test_lab_histogram_of_two_colors():
    image = plain((255, 0, 0)).copy()
    image[:, :8] = (0, 0, 255)
    found = descriptors.lab_histogram(image)[0]
    np.testing.assert_allclose(np.sort(found)[-2:], np.sqrt((0.25, 0.75)), rtol=1e-6)
    assert np.count_nonzero(found) == 2
    moved = np.roll(image, 5, axis=1).swapaxes(1, 2)
    np.testing.assert_array_equal(descriptors.lab_histogram(moved)[0], found)
    other = descriptors.lab_histogram(plain((0, 255, 0)))[0]
    assert np.sum((found - other) ** 2) == pytest.approx(2.0)


def test_lab_histogram_has_the_bins_it_says():
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    expected = np.zeros((4, 9, 9))
    for lightness, a, b in color.rgb2lab(image[0]).reshape(-1, 3):
        expected[
            min(int(lightness / 25), 3), int((a + 108) / 24), int((b + 108) / 24)
        ] += 1 / 64**2
    found = descriptors.lab_histogram(image)[0].astype(np.float64) ** 2
    assert np.count_nonzero(expected) > 60
    # Colours at the edge of a bin may fall on either side.
    assert np.abs(found - expected.ravel()).sum() < 0.02


def test_greys_differ_only_in_lightness():
    greys = np.concatenate([plain((v, v, v)) for v in range(256)])
    where = descriptors.lab_histogram(greys).argmax(axis=1)
    np.testing.assert_array_equal(where % 81, 4 * 9 + 4)
    assert (np.diff(where) >= 0).all()
    np.testing.assert_array_equal(np.unique(where // 81), np.arange(4))


@pytest.mark.parametrize("degrees", [0, 50, 90, 135])
def test_hog_finds_the_direction_of_a_ramp(degrees):
    y, x = np.mgrid[:48, :32]
    angle = math.radians(degrees)
    ramp = 100 + 2.0 * (x * math.cos(angle) + y * math.sin(angle))
    image = np.repeat(ramp.round().astype(np.uint8)[None, ..., None], 3, axis=3)
    found = descriptors.hog(image)
    assert found.shape == (1, 5 * 3 * 36)
    by_orientation = found.reshape(-1, 9).sum(axis=0)
    assert by_orientation.argmax() == degrees // 20
    assert by_orientation.max() > 0.6 * by_orientation.sum()


def test_hog_is_blind_to_brightness():
    images = random_images() // 2
    found = descriptors.hog(images)
    np.testing.assert_allclose(descriptors.hog(images + 100), found, atol=1e-6)
    assert found.std() > 0.05


@pytest.mark.parametrize(("name", "size"), [("hog", 15), ("lbp", 3)])
def test_too_small_images_are_refused(name, size):
    images = np.zeros((1, size, 40, 3), np.uint8)
    with pytest.raises(errors.DataError, match=f"got {size} x 40: use a larger"):
        descriptors.compute([name], images)


def pattern(gray, y, x):
    """The uniform pattern of a pixel: 8 neighbours on the circle of radius 1."""
    brighter = []
    for p in range(8):
        dy = round(-math.sin(2 * math.pi * p / 8), 5)
        dx = round(math.cos(2 * math.pi * p / 8), 5)
        top, left = math.floor(y + dy), math.floor(x + dx)
        v, u = y + dy - top, x + dx - left
        corners = gray[top : top + 2, left : left + 2].astype(float)
        corners = np.pad(
            corners, ((0, 2 - corners.shape[0]), (0, 2 - corners.shape[1]))
        )
        value = np.array([1 - v, v]) @ corners @ np.array([1 - u, u])
        brighter.append(value - gray[y, x] >= 0)
    changes = sum(a != b for a, b in zip(brighter, np.roll(brighter, 1), strict=True))
    return sum(brighter) if changes <= 2 else 9


def test_lbp_counts_the_patterns_of_each_quarter():
    gray = np.random.default_rng(0).integers(0, 256, (26, 34), np.uint8)
    expected = np.zeros((2, 2, 10))
    for y in range(1, 25):
        for x in range(1, 33):
            expected[(y - 1) // 12, (x - 1) // 16, pattern(gray, y, x)] += 1 / 192
    assert (expected.sum(axis=(0, 1)) > 0).all()
    found = descriptors.lbp(np.repeat(gray[None, ..., None], 3, axis=3))
    np.testing.assert_allclose(
        found.reshape(2, 2, 10), np.sqrt(expected / 4), atol=1e-6
    )


def test_lbp_turns_with_the_image():
    images = random_images()
    found = descriptors.lbp(images).reshape(-1, 2, 2, 10)
    turned = descriptors.lbp(np.rot90(images, axes=(1, 2))).reshape(-1, 2, 2, 10)
    np.testing.assert_allclose(np.rot90(found, axes=(1, 2)), turned, atol=1e-6)
    assert np.abs(found - turned).max() > 0.01


@pytest.mark.parametrize("value", [0, 137, 255])
def test_lbp_of_a_constant_is_one_pattern(value):
    found = descriptors.lbp(plain((value, value, value))).reshape(4, 10)
    np.testing.assert_array_equal(found, np.eye(10)[[8] * 4] * 0.5)


def haar(x):
    """One row, by sums and differences of neighbours, level by level."""
    x, details = np.asarray(x, float), []
    while len(x) > 1:
        details.insert(0, (x[::2] - x[1::2]) / math.sqrt(2))
        x = (x[::2] + x[1::2]) / math.sqrt(2)
    return np.concatenate([x, *details])


def haar_2d(channel):
    rows = np.array([haar(row) for row in channel])
    return np.array([haar(column) for column in rows.T]).T


def brute_force_wavelet(image):
    """The signature of a 128 x 128 image, and the signs of all its coefficients."""
    y = image @ np.array((0.299, 0.587, 0.114)) / 255
    i = image @ np.array((0.596, -0.274, -0.322)) / 255
    q = image @ np.array((0.211, -0.523, 0.312)) / 255
    signature, averages = np.zeros((3, 128, 128)), []
    for channel, signs in zip((y, i, q), signature, strict=True):
        coefficients = haar_2d(channel)
        averages.append(channel.mean())
        coefficients[0, 0] = 0
        order = np.argsort(-np.abs(coefficients), axis=None)[:60]
        signs.flat[order] = np.sign(coefficients.flat[order])
    return signature, np.array(averages)


def test_wavelet_matches_the_definition():
    images = random_images(2, size=128)
    found = descriptors.wavelet(images).reshape(2, 3, 32, 32)
    for image, signature in zip(images, found, strict=True):
        signs, averages = brute_force_wavelet(image)
        assert np.count_nonzero(signs) == 180
        assert np.count_nonzero(signs[:, :32, :32]) > 120
        corner = signs[:, :32, :32]
        corner[:, 0, 0] = averages * math.sqrt(60)
        np.testing.assert_allclose(signature, corner, atol=1e-5)


def test_wavelet_distance_counts_signs():
    a, b = descriptors.wavelet(random_images(2, size=128)).reshape(2, 3, -1)
    averages = np.sum((a[:, 0] - b[:, 0]) ** 2)
    a, b = a[:, 1:], b[:, 1:]
    one, opposite = np.sum((a != 0) ^ (b != 0)), np.sum(a * b < 0)
    assert one > 50
    assert opposite > 2
    first, second = descriptors.wavelet(random_images(2, size=128))
    distance = np.sum((first - second) ** 2)
    assert distance == pytest.approx(one + 4 * opposite + averages, rel=1e-5)


def test_wavelet_of_a_half_white_image():
    image = plain((0, 0, 0), size=64).copy()
    image[:, :, :32] = 255
    found = descriptors.wavelet(image)[0].reshape(3, 32, 32)
    # Light lies left, none is coloured. The edge is blurred as it is enlarged, which
    # finer wavelets at it show.
    assert found[0, 0, 0] == pytest.approx(0.5 * math.sqrt(60), abs=1e-4)
    assert found[0, 0, 1] == 1
    assert not found[0, 1:].any()
    np.testing.assert_allclose(found[1:], 0, atol=1e-5)
    mirrored = descriptors.wavelet(image[:, :, ::-1])[0].reshape(3, 32, 32)
    assert mirrored[0, 0, 1] == -1
