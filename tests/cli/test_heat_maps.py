"""Sheets with heat maps, of a model whose embeddings are known."""

import logging

from helpers.cells import SIZE, Cells, draw_cells
import numpy as np
import pytest

from deeprank_jax.cli import sheets
from deeprank_jax.report.contact_sheet import Tile

SHARED, OF_QUERY, OF_HIT = (0, 0), (3, 3), (0, 3)


def tile(*cells, **options):
    return Tile(image=draw_cells(*cells), lines=["robin", "0.5"], **options)


def warmth(image, cell):
    """Returns red less blue in the middle of a cell."""
    side = len(image) // 4
    y, x = (side * place + side // 2 for place in cell)
    return int(image[y, x, 0]) - int(image[y, x, 2])


def groups_of(query, tiles, model=None):
    return sheets._heat_map_groups(model or Cells(), query, tiles)


def test_each_image_has_its_own_map():
    (group,) = groups_of(tile(SHARED, OF_QUERY), [tile(SHARED, OF_HIT)])
    first, second = (x.image for x in group.tiles)
    for image, alone, elsewhere in (
        (first, OF_QUERY, OF_HIT),
        (second, OF_HIT, OF_QUERY),
    ):
        assert warmth(image, SHARED) > 80
        assert warmth(image, alone) < min(-10, warmth(image, elsewhere) - 10)
    assert "hiding orange lowers the cosine" in group.heading
    assert [x.lines for x in group.tiles] == [["robin"], ["robin"]]


def test_the_first_hits_are_numbered_and_share_a_scale():
    hits = [tile(SHARED, (1, i % 4)) for i in range(9)]
    of_query, of_hits = groups_of(tile(SHARED, OF_QUERY), hits)
    assert len(of_query.tiles) == len(of_hits.tiles) == 7
    assert of_query.tiles[2].lines == ["beside 3", "cosine 0.50"]
    assert of_hits.tiles[2].lines == ["3: robin"]
    for number, (first, second) in enumerate(
        zip(of_query.tiles, of_hits.tiles, strict=True)
    ):
        assert warmth(first.image, OF_QUERY) < -10
        assert warmth(second.image, (1, number % 4)) < -10


def test_little_similarity_has_little_colour():
    (group,) = groups_of(tile(OF_QUERY), [tile(OF_HIT)])
    colors = np.concatenate([x.image for x in group.tiles]).astype(int)
    assert np.abs(colors[..., 0] - colors[..., 2]).max() < 200


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_map_lies_over_what_the_network_sees(monkeypatch, fit):
    monkeypatch.setattr(Cells, "preprocessing", {**Cells.preprocessing, "fit": fit})
    monkeypatch.setattr(sheets, "_LEAST_FALL", 1e-6)
    # The shared part is on the left of an image that is twice as wide as it is high.
    wide = np.zeros((SIZE, 2 * SIZE, 3), np.uint8)
    wide[: SIZE // 2, SIZE // 2 : SIZE] = 255
    (group,) = groups_of(Tile(image=wide, lines=["a"]), [Tile(image=wide, lines=["b"])])
    image = group.tiles[0].image.astype(int)
    colors = image[..., 0] - image[..., 2]
    rows, columns = np.nonzero(colors > 0.8 * colors.max())
    top, column = {"crop": (0, 0.25), "pad": (0.25, 0.375), "stretch": (0, 0.375)}[fit]
    assert top <= rows.min() / len(image)
    assert rows.max() / len(image) < 0.5
    assert abs(columns.mean() / len(image) - column) < 0.06
    if fit == "pad":
        # The border has no colour.
        border = np.concatenate([image[:40], image[-40:]])
        assert np.abs(border[..., 0] - border[..., 2]).max() == 0


def test_images_that_the_network_cannot_see_are_left_out(monkeypatch, caplog):
    few = {**Cells.preprocessing, "max_pixels": SIZE**2}
    monkeypatch.setattr(Cells, "preprocessing", few)
    large = Tile(image=np.zeros((64, 64, 3), np.uint8), lines=["x"], title="large.png")
    missing = tile(SHARED, is_missing=True)
    with caplog.at_level(logging.WARNING):
        groups = groups_of(tile(SHARED), [large, missing, tile(SHARED)])
        assert "Without a heat map: large.png" in caplog.text
        assert len(groups) == 1
        assert groups_of(tile(SHARED), [large]) == []
        assert groups_of(large, [tile(SHARED)]) == []
    assert caplog.text.count("No heat maps") == 2
