"""Contact sheets: the page in a real browser, the picture by its pixels."""

import re

from helpers.browser import open_in_browser
import numpy as np
from PIL import Image
import pytest

from deeprank_jax.report import contact_sheet


def write(path, title, groups):
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        contact_sheet.write_sheet(file, path.suffix, title, groups)
    return path


def create_groups():
    rng = np.random.default_rng(0)
    tiles = [
        contact_sheet.Tile(
            image=rng.integers(0, 256, (20, 30, 3), np.uint8),
            lines=("a label that is far too long for one image", f"{i / 10:.4f}"),
            title=f"photos/<b>{i}</b>.png",
            frame=("query", "similar", "far", "")[i % 4],
        )
        for i in range(11)
    ]
    return [
        contact_sheet.Group(heading="first & best", tiles=tiles[:1]),
        contact_sheet.Group(heading="", tiles=tiles),
    ]


def test_the_page_opens_in_a_browser(tmp_path):
    path = write(tmp_path / "s.html", "All <of> it", create_groups())
    found, console = open_in_browser(path.read_text(encoding="utf-8"), tmp_path)
    assert console == []
    assert found["images"] == 12
    assert (found["broken"], found["unnamed"], found["overflow"]) == (0, 0, 0)
    assert (found["violations"], found["requests"]) == ([], [])


def test_a_narrow_page_needs_no_scrolling(tmp_path):
    path = write(tmp_path / "s.html", "a" * 90, create_groups())
    page = path.read_text(encoding="utf-8")
    found, _ = open_in_browser(page, tmp_path, width=360)
    assert found["overflow"] <= 0
    assert found["cut"] == []


def test_images_link_to_their_files(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    tiles = [
        contact_sheet.Tile(image=image, file=str(tmp_path / "photos" / "a #1.png")),
        contact_sheet.Tile(image=image, title="tfds:emoji/test[0]"),
    ]
    group = contact_sheet.Group(heading="", tiles=tiles)
    path = tmp_path / "sheets" / "s.html"
    path.parent.mkdir()
    with path.open("wb") as file:
        contact_sheet.write_sheet(file, ".html", "All", [group], folder=path.parent)
    page = path.read_text("utf-8")
    assert re.findall(r'<a href="(.*?)">', page) == ["../photos/a%20%231.png"]


def test_names_are_text_on_the_page(tmp_path):
    path = write(tmp_path / "s.html", "All <of> it", create_groups())
    page = path.read_text(encoding="utf-8")
    assert "photos/&lt;b&gt;3&lt;/b&gt;.png" in page
    assert "<b>" not in page
    assert "<of>" not in page


def test_the_picture_shows_every_tile(tmp_path):
    path = write(tmp_path / "deep" / "s.png", "All", create_groups())
    picture = np.asarray(Image.open(path))
    # A title, one heading, and three rows: one of the first group, two of the second.
    # The label takes three lines, none of which is cut off.
    rows = 3 * (112 + 6 + 4 * 16 + 10)
    assert picture.shape == (10 + 28 + 22 + rows, 10 + 8 * 122, 3)
    green = (picture == (0x0B, 0x7A, 0x56)).all(axis=2)
    assert green.sum() > 3 * 4 * 100
    thumb = contact_sheet.thumbnail(create_groups()[0].tiles[0].image)
    top = 10 + 28 + 22
    np.testing.assert_array_equal(picture[top : top + 112, 10:122], thumb)


def test_no_text_of_a_picture_is_cut_off(tmp_path):
    """The sentence on two images is wider than the two."""
    tile = contact_sheet.Tile(
        image=np.full((4, 4, 3), 255, np.uint8), lines=(50 * "w", "0.1")
    )
    heights = []
    for words in (8, 60):
        heading = " ".join(["similar"] * words)
        group = contact_sheet.Group(heading=heading, tiles=[tile, tile])
        path = write(tmp_path / "s.png", "Two", [group])
        picture = np.asarray(Image.open(path))
        # The frames of the tiles begin 3 pixels left of them.
        assert (picture[:, :7] == 255).all()
        assert (picture[:, -7:] == 255).all()
        heights.append(len(picture))
    # Five lines and more below each image, and three of the long heading.
    assert heights[0] >= 10 + 28 + 22 + 112 + 6 + 5 * 16 + 10
    assert heights[1] == heights[0] + 2 * 17


def test_a_thumbnail_is_the_whole_image_on_white():
    image = np.zeros((50, 200, 3), np.uint8)
    thumb = contact_sheet.thumbnail(image)
    assert thumb.shape == (112, 112, 3)
    assert (thumb[56] == 0).all()
    assert (thumb[:40] == 255).all()
    assert (thumb[72:] == 255).all()


def test_other_files_are_refused():
    with pytest.raises(ValueError, match=r"written as \.html or \.png"):
        contact_sheet.check_suffix("s.gif")


def test_an_empty_sheet_is_a_title(tmp_path):
    for name in ("s.html", "s.png"):
        assert write(tmp_path / name, "Nothing", []).stat().st_size
