"""Heat maps over images, by their pixels."""

import numpy as np

from deeprank_jax.report.heat_map import draw_heat_map

IMAGE = np.full((40, 60, 3), (200, 100, 0), np.uint8)


def test_signs_have_colours_and_zero_is_grey():
    values = np.zeros((4, 6))
    values[:2], values[2:, 3:] = 1.0, -1.0
    drawn = draw_heat_map(IMAGE, values, 1.0).astype(int)
    assert drawn.shape == IMAGE.shape
    red, green, blue = drawn[5, 30]
    assert red > green > blue
    red, green, blue = drawn[35, 50]
    assert blue > green > red
    # The image's grey, lightened by a quarter.
    np.testing.assert_array_equal(drawn[38, 5], round(100 + 155 / 4))


def test_half_the_largest_value_has_half_the_colour_and_more_no_more():
    half, full, more = (
        draw_heat_map(IMAGE, np.full((2, 2), value), 0.2).astype(float)[0, 0]
        for value in (0.1, 0.2, 5.0)
    )
    grey = draw_heat_map(IMAGE, np.zeros((2, 2)), 0.2)[0, 0]
    np.testing.assert_allclose(half - grey, (full - grey) / 2, atol=1)
    np.testing.assert_array_equal(full, more)
