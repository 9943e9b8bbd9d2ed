"""Contact sheets: groups of images with captions, as a PNG or an HTML page."""

from collections.abc import Sequence
import dataclasses
import functools
import math
import os
import pathlib
import re
from typing import IO

from matplotlib import font_manager
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeprank_jax.errors import UserError
from deeprank_jax.report import links, templates, thumbnails

SUFFIXES = (".html", ".png")
# Pixels of an image, and of one of a sheet with few; a page has as many CSS pixels.
SIZE, LARGE = 112, 224
_GAP, _LINE = 10, 16
_COLUMNS = 8
# Lines of a caption or heading in a picture; a name of 255 characters has fewer.
_MAX_LINES = 24
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
      file: Path of the image's file, which a page links to; "" for none.
      frame: `"query"`, `"similar"`, `"not similar"`, `"near"`, `"far"`, or `""` for
        none.
      is_missing: True for a square in the place of an image that cannot be read.
    """

    image: np.ndarray
    lines: Sequence[str] = ()
    title: str = ""
    file: str = ""
    frame: str = ""
    is_missing: bool = False


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
    file: IO[bytes],
    suffix: str,
    title: str,
    groups: Sequence[Group],
    *,
    folder: str | os.PathLike[str] = ".",
    size: int = SIZE,
) -> None:
    """Writes a sheet.

    Args:
      file: File to write to.
      suffix: Kind of sheet, one of `SUFFIXES`.
      title: Title of the sheet.
      groups: Groups in order.
      folder: Folder of the sheet, from which a page links to the files of images.
      size: Height and width of an image in pixels.
    """
    if suffix == ".html":
        _write_page(file, title, groups, folder, size)
    else:
        _write_png(file, title, groups, size)


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


def thumbnail(image: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Returns the whole image on a white square of `size` pixels."""
    picture = Image.fromarray(image)
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), "white")
    square.paste(picture, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


def _write_page(
    file: IO[bytes],
    title: str,
    groups: Sequence[Group],
    folder: str | os.PathLike[str],
    size: int,
) -> None:
    page = templates.render(
        pathlib.Path(__file__).with_name("contact_sheet.html"),
        title=title,
        groups=groups,
        frames=_FRAMES,
        size=size,
        encode=lambda tile: thumbnails.encode_image(thumbnail(tile.image, size)),
        link=lambda tile: links.link_to(tile.file, folder) if tile.file else "",
    )
    file.write(page.encode("utf-8", "backslashreplace"))


def _write_png(file: IO[bytes], title: str, groups: Sequence[Group], size: int) -> None:
    """Draws the sheet twice: without output for its height, then into the picture."""
    columns = max(2, min(_COLUMNS, max((len(g.tiles) for g in groups), default=0)))
    width = _GAP + columns * (size + _GAP)
    # A long title or heading widens the sheet up to that of all columns, then wraps.
    texts = [_font(15).getlength(title)]
    texts += [_font(12).getlength(group.heading) for group in groups]
    widest = _GAP + _COLUMNS * (SIZE + _GAP)
    width = max(width, min(widest, math.ceil(max(texts)) + 2 * _GAP))
    sheet = _Sheet(width, columns, size)
    height = sheet.draw(None, title, groups)
    picture = Image.new("RGB", (width, height), "white")
    sheet.draw(picture, title, groups)
    picture.save(file, "PNG")


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """Layout of a sheet: its width in pixels and in columns, and size of an image."""

    width: int
    columns: int
    size: int

    def draw(
        self, picture: Image.Image | None, title: str, groups: Sequence[Group]
    ) -> int:
        """Draws the groups, unless there is no picture, and returns the height."""
        y = self._write(picture, title, _GAP, size=15, color=_INK) + 8
        for group in groups:
            if group.heading:
                heading = group.heading
                y = self._write(picture, heading, y, size=12, color=_QUIET) + 5
            for first in range(0, len(group.tiles), self.columns):
                row = group.tiles[first : first + self.columns]
                captions = [_wrap_lines(tile.lines, self.size) for tile in row]
                if picture is not None:
                    for column, tile in enumerate(row):
                        x = _GAP + column * (self.size + _GAP)
                        _draw_tile(picture, tile, captions[column], x, y, self.size)
                y += self.size + 6 + max(map(len, captions)) * _LINE + _GAP
        return y

    def _write(
        self, picture: Image.Image | None, text: str, y: int, *, size: int, color: str
    ) -> int:
        """Writes a text over the width of the sheet, and returns the y below it."""
        for line in _wrap(text, _font(size), self.width - 2 * _GAP):
            if picture is not None:
                place = (_GAP, y)
                ImageDraw.Draw(picture).text(place, line, fill=color, font=_font(size))
            y += size + 5
        return y


def _draw_tile(
    picture: Image.Image, tile: Tile, caption: Sequence[str], x: int, y: int, size: int
) -> None:
    draw = ImageDraw.Draw(picture)
    picture.paste(Image.fromarray(thumbnail(tile.image, size)), (x, y))
    box = (x - 3, y - 3, x + size + 2, y + size + 2)
    color = _FRAMES.get(tile.frame, "#dddddd")
    draw.rectangle(box, outline=color, width=3 if tile.frame else 1)
    for number, line in enumerate(caption):
        place = (x, y + size + 6 + number * _LINE)
        draw.text(place, line, fill=_INK, font=_font(11))


def _wrap_lines(lines: Sequence[str], size: int) -> list[str]:
    """Returns the lines of a caption, broken to the width of an image."""
    return [part for line in lines for part in _wrap(line, _font(11), size)]


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Returns a text in lines of a width, broken at blanks and inside long words.

    After the most lines that a caption may have, an ellipsis stands for the rest.
    """
    lines, line = [], ""
    for word in re.findall(r"\S+\s*|\s+", text):
        if line and font.getlength((line + word).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        for letter in word:
            if line and font.getlength(line + letter.strip()) > width:
                lines.append(line)
                line = ""
            line += letter
    lines.append(line.rstrip())
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], f"{lines[_MAX_LINES - 1][:-2]}…"]
    return lines


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
