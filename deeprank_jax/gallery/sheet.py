"""Contact sheets: images in groups, with what is to be said of each, to look at.

A sheet is a PNG, or an HTML page that needs nothing else.
"""

from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib

import jinja2
from matplotlib import font_manager
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeprank_jax.report import figures

SUFFIXES = (".html", ".png")
_SIZE = 112  # Of an image, in pixels; a page shows it at half that for sharp screens.
_GAP, _LINE = 10, 16
_COLUMNS = 8
_INK, _QUIET = "#222222", "#666666"
# Of a frame: what was asked for, and what is said to be similar and not similar.
_FRAMES = {"query": "#222222", "similar": "#0b7a56", "not similar": "#c2412d"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
    """One image of a sheet.

    Attributes:
      image: `[H, W, 3]` uint8, shown as a square.
      lines: what stands below it, short.
      title: what a page tells of it on pointing, as its path.
      frame: `"query"`, `"similar"`, `"not similar"` or `""` for none.
    """

    image: np.ndarray
    lines: Sequence[str] = ()
    title: str = ""
    frame: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Images that belong together.

    Attributes:
      heading: of the group; may be empty.
      tiles: its images, in order.
    """

    heading: str
    tiles: Sequence[Tile]


def write_sheet(
    path: str | os.PathLike[str], title: str, groups: Sequence[Group]
) -> pathlib.Path:
    """Writes a sheet, whole or not at all.

    Args:
      path: a `.html` or `.png` file.
      title: above all groups.
      groups: in order.

    Raises:
      ValueError: it is neither kind of file.
      OSError: it cannot be written.
    """
    path = check_suffix(path)
    write = {".html": _write_page, ".png": _write_png}[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        write(scratch, title, groups)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def check_suffix(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a sheet.

    Raises:
      ValueError: sheets of that kind are not written.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: pictures are written as {' or '.join(SUFFIXES)}; give --out a "
            "name that ends so."
        )
    return path


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Returns an image as a white square of the sheet's size, whole."""
    shown = Image.fromarray(image)
    scale = _SIZE / max(shown.size)
    width, height = (max(1, round(side * scale)) for side in shown.size)
    shown = shown.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (_SIZE, _SIZE), "white")
    square.paste(shown, ((_SIZE - width) // 2, (_SIZE - height) // 2))
    return np.asarray(square)


def _write_page(path: pathlib.Path, title: str, groups: Sequence[Group]) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("sheet.html").render(
        title=title,
        groups=groups,
        frames=_FRAMES,
        encode=lambda tile: figures.encode_image(thumbnail(tile.image)),
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _write_png(path: pathlib.Path, title: str, groups: Sequence[Group]) -> None:
    """Draws the sheet twice: on nothing to learn its height, then for good."""
    columns = max(2, min(_COLUMNS, max((len(g.tiles) for g in groups), default=0)))
    width = _GAP + columns * (_SIZE + _GAP)
    width = max(width, round(_font(15).getlength(title)) + 2 * _GAP)
    height = _draw(None, title, groups, columns)
    picture = Image.new("RGB", (width, height), "white")
    _draw(ImageDraw.Draw(picture), title, groups, columns, paste=picture.paste)
    picture.save(path)


def _draw(
    draw: ImageDraw.ImageDraw | None,
    title: str,
    groups: Sequence[Group],
    columns: int,
    *,
    paste: Callable[..., object] | None = None,
) -> int:
    """Draws everything, if there is what to draw on, and returns where it ends."""
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
