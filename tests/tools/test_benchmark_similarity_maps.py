"""`tools.benchmark similarity_maps` measures what it says, of a known embedding."""

from helpers.cells import Cells, draw_cells
import numpy as np

from tools.benchmark import similarity_maps


def test_what_two_images_share_is_what_their_map_hides():
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(12):
        shared, first, second = (divmod(x, 4) for x in rng.permutation(16)[:3])
        pairs.append((draw_cells(shared, first), draw_cells(shared, second)))
    values = similarity_maps.measure_pairs(Cells(), pairs)
    assert values["pairs"] == 12
    assert abs(values["cosine"] - 0.5) < 1e-6
    assert values["fall_hottest"] > 0.2
    assert values["fall_coldest"] < 0
    assert values["fall_hottest"] > values["fall_by_another_map"] + 0.1
    assert values["hottest_falls_more_than_by_another_map"] > 0.8


def test_a_quarter_is_a_quarter_where_values_are_equal_too():
    for values in (np.zeros((8, 8)), np.arange(64.0).reshape(8, 8)):
        assert similarity_maps._hottest(values).sum() == 16
