"""Contact sheets: groups of images with captions, as a PNG or an HTML page."""

from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib
from typing import IO

from matplotlib import font_manager
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeprank_jax.errors import UserError
from deeprank_jax.report import templates, thumbnails

SUFFIXES = (".html", ".png")
_SIZE = 112  # Pixels of an image; a page shows it at half size for sharp screens.
_GAP, _LINE = 10, 16
_COLUMNS = 8
_INK, _QUIET = "#222222", "#666666"
# Colours of frames: the query, the verdict of a comparison, within a distance or not.
_FRAMES = {
    "query": "#222222",
    "similar": "#0b7a56",
    "not similar": "#c2412d",
    "near": "#0b7a56",
    "far": "#c2412d",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
    """One image of a sheet.

    Attributes:
      image: `[H, W, 3]` uint8, shown as a square.
      lines: Short lines below the image.
      title: Text that a page shows on pointing, e.g. the path.
      frame: `"query"`, `"similar"`, `"not similar"`, `"near"`, `"far"`, or `""` for
        none.
    """

    image: np.ndarray
    lines: Sequence[str] = ()
    title: str = ""
    frame: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Images that belong together.

    Attributes:
      heading: Heading of the group; may be empty.
      tiles: Images in order.
    """

    heading: str
    tiles: Sequence[Tile]


def write_sheet(
    file: IO[bytes], suffix: str, title: str, groups: Sequence[Group]
) -> None:
    """Writes a sheet.

    Args:
      file: File to write to.
      suffix: Kind of sheet, one of `SUFFIXES`.
      title: Title of the sheet.
      groups: Groups in order.
    """
    {".html": _write_page, ".png": _write_png}[suffix](file, title, groups)


def check_suffix(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a sheet.

    Raises:
      UserError: There are no sheets with this suffix.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: pictures are written as {' or '.join(SUFFIXES)}; give --out a "
            "name that ends so."
        )
    return path


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Returns the whole image on a white square of the sheet's size."""
    picture = Image.fromarray(image)
    scale = _SIZE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (_SIZE, _SIZE), "white")
    square.paste(picture, ((_SIZE - width) // 2, (_SIZE - height) // 2))
    return np.asarray(square)


def _write_page(file: IO[bytes], title: str, groups: Sequence[Group]) -> None:
    page = templates.render(
        pathlib.Path(__file__).with_name("contact_sheet.html"),
        title=title,
        groups=groups,
        frames=_FRAMES,
        encode=lambda tile: thumbnails.encode_image(thumbnail(tile.image)),
    )
    file.write(page.encode("utf-8", "backslashreplace"))


def _write_png(file: IO[bytes], title: str, groups: Sequence[Group]) -> None:
    """Draws the sheet twice: without output for its height, then into the picture."""
    columns = max(2, min(_COLUMNS, max((len(g.tiles) for g in groups), default=0)))
    width = _GAP + columns * (_SIZE + _GAP)
    width = max(width, round(_font(15).getlength(title)) + 2 * _GAP)
    height = _draw(None, title, groups, columns)
    picture = Image.new("RGB", (width, height), "white")
    _draw(ImageDraw.Draw(picture), title, groups, columns, paste=picture.paste)
    picture.save(file, "PNG")


def _draw(
    draw: ImageDraw.ImageDraw | None,
    title: str,
    groups: Sequence[Group],
    columns: int,
    *,
    paste: Callable[..., object] | None = None,
) -> int:
    """Draws the groups, unless `draw` is None, and returns the height."""
    y = _GAP
    if draw is not None:
        draw.text((_GAP, y), title, fill=_INK, font=_font(15))
    y += 28
    for group in groups:
        if group.heading:
            if draw is not None:
                draw.text((_GAP, y), group.heading, fill=_QUIET, font=_font(12))
            y += 22
        lines = max((len(tile.lines) for tile in group.tiles), default=0)
        for first in range(0, len(group.tiles), columns):
            if draw is not None and paste is not None:
                for column, tile in enumerate(group.tiles[first : first + columns]):
                    _draw_tile(draw, paste, tile, _GAP + column * (_SIZE + _GAP), y)
            y += _SIZE + 6 + lines * _LINE + _GAP
    return y


def _draw_tile(
    draw: ImageDraw.ImageDraw,
    paste: Callable[..., object],
    tile: Tile,
    x: int,
    y: int,
) -> None:
    paste(Image.fromarray(thumbnail(tile.image)), (x, y))
    box = (x - 3, y - 3, x + _SIZE + 2, y + _SIZE + 2)
    color = _FRAMES.get(tile.frame, "#dddddd")
    draw.rectangle(box, outline=color, width=3 if tile.frame else 1)
    for number, line in enumerate(tile.lines):
        place = (x, y + _SIZE + 6 + number * _LINE)
        draw.text(place, _shorten(line, _font(11)), fill=_INK, font=_font(11))


def _shorten(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Returns the beginning that fits below an image."""
    if font.getlength(text) <= _SIZE:
        return text
    while text and font.getlength(f"{text}…") > _SIZE:
        text = text[:-1]
    return f"{text}…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
