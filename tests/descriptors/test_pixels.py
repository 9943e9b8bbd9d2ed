import numpy as np
import pytest

from deeprank_jax.descriptors.pixels import center_and_normalize, pixels


def test_each_pixel_is_the_mean_of_its_area():
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 8, 3), dtype=np.uint8)
    expected = np.zeros((3, 4, 4, 3))
    for i in range(4):
        for j in range(4):
            area = images[:, 3 * i : 3 * i + 3, 2 * j : 2 * j + 2]
            expected[:, i, j] = area.mean(axis=(1, 2)) / 255.0
    found = pixels(images, size=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.reshape(3, -1), atol=1e-6)
    assert pixels(images[:0]).shape == (0, 768)


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        pixels(np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 4\)"):
        pixels(np.zeros((2, 4, 4, 4), np.uint8))


def test_rows_have_unit_length_around_their_mean():
    x = np.random.default_rng(0).random((6, 5)).astype(np.float32)
    found = center_and_normalize(x)
    assert found.dtype == np.float32
    expected = x - x.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e3])
def test_equal_rows_have_no_direction(value):
    np.testing.assert_array_equal(center_and_normalize(np.full((1003, 3), value)), 0.0)
    assert center_and_normalize(np.zeros((0, 3))).shape == (0, 3)
