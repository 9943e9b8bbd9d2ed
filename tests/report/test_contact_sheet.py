"""Contact sheets: the page in a real browser, the picture by its pixels."""

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
    path = write(tmp_path / "s.html", "All", create_groups())
    page = path.read_text(encoding="utf-8")
    found, _ = open_in_browser(page, tmp_path, width=500)
    assert found["overflow"] <= 0


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
    rows = 3 * (112 + 6 + 2 * 16 + 10)
    assert picture.shape == (10 + 28 + 22 + rows, 10 + 8 * 122, 3)
    green = (picture == (0x0B, 0x7A, 0x56)).all(axis=2)
    assert green.sum() > 3 * 4 * 100
    thumb = contact_sheet.thumbnail(create_groups()[0].tiles[0].image)
    top = 10 + 28 + 22
    np.testing.assert_array_equal(picture[top : top + 112, 10:122], thumb)


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
