"""Limits on the work that an image file may ask of its decoder.

A small file can keep a decoder busy for minutes or claim gigabytes: by scans that
repeat, by millions of empty parts, or by tables and tiles larger than the image. Each
function returns the reason to refuse a file, or None; none of them decodes pixels.
"""

from collections.abc import Callable, Mapping
import re
import struct
from typing import NamedTuple

import numpy as np

# Scans times pixels of a JPEG, about a second of work; usual are 10 scans.
_MAX_SCANNED_PIXELS, _FEW_SCANS, _MOST_SCANS = 2 * 10**9, 32, 1000
# Parts of a file before its pixels: segments of a JPEG, blocks of a GIF.
_MAX_PARTS = 20_000
MAX_PNG_CHUNKS = 100_000
# Pixels and bytes of a run-length encoded BMP, which Pillow decodes in Python.
_MAX_BMP_WORK = 8 * 10**6
# Entries of a TIFF's directory, values of one entry, and pixels of a tile.
_MAX_TAGS, _MAX_VALUES, _MAX_TILE = 4096, 2**18, 2**20

_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_JPEG_SCAN, _JPEG_END, _JPEG_PROGRESSIVE = 0xDA, 0xD9, 0xC2
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_NO_SEGMENT = frozenset((0x00, 0x01, 0xFF, *range(0xD0, 0xD9)))
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4,
               12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_TEXTS = (1, 2, 6, 7)
_WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 259, 322, 323
# Places and sizes of the pixels, in strips or in tiles.
_PIECES = ((273, 279), (324, 325))
_JPEG_IN_TIFF = (6, 7)


def check_header(data: bytes) -> str | None:
    """Returns the reason why a file must not be opened, None if it may be.

    Args:
      data: Content of an image file, not empty.
    """
    check = _CHECKS.get(data[0])
    if check is None:
        return None
    try:
        return check(data)
    except (struct.error, IndexError):
        return None  # Cut off: the decoder says so.


def _check_jpeg(data: bytes) -> str | None:
    """Follows the segments as libjpeg does."""
    position, num_pixels, num_colors, is_whole_in_one = 2, 0, 0, False
    for _ in range(_MAX_PARTS):
        if data[position] != 0xFF or data[position + 1] in _JPEG_NO_SEGMENT:
            marker = _JPEG_MARKER.search(data, position)
            if marker is None:
                return None
            position = marker.start()
        kind = data[position + 1]
        if kind in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            num_pixels = max(num_pixels, width * height)
            is_whole_in_one = kind < _JPEG_PROGRESSIVE
            num_colors = data[position + 9]
        elif kind == _JPEG_SCAN:
            # A first scan of all colours is the only one, unless it is progressive.
            if is_whole_in_one and data[position + 4] == num_colors:
                return None
            return _check_scans(data, num_pixels)
        elif kind == _JPEG_END:
            return None
        position += 2 + (data[position + 2] << 8) + data[position + 3]
    return _too_many(_MAX_PARTS, "segments before its pixels")


def _check_scans(data: bytes, num_pixels: int) -> str | None:
    most = min(max(_MAX_SCANNED_PIXELS // max(num_pixels, 1), _FEW_SCANS), _MOST_SCANS)
    if _count_scans(data) <= most:
        return None
    # Thumbnails and further images have scans of their own.
    num_scans, position = 0, 2
    while marker := _JPEG_MARKER.search(data, position):
        kind = data[marker.end() - 1]
        num_scans += kind == _JPEG_SCAN
        if kind == _JPEG_END:
            return None
        if num_scans > most:
            return (
                f"a JPEG of more than {most:,} scans, which take too long; save it "
                "again"
            )
        length = int.from_bytes(data[marker.end() : marker.end() + 2])
        position = marker.end() + length
    return None


def _count_scans(data: bytes, start: int = 0, size: int | None = None) -> int:
    """Returns the number of marks that begin a scan, or more."""
    end = len(data) if size is None else min(start + size, len(data))
    values = np.frombuffer(data, np.uint8)[start:end]
    return int(np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == _JPEG_SCAN)))


def _check_gif(data: bytes) -> str | None:
    position = 13
    if data[10] & 0x80:
        position += 3 * 2 ** ((data[10] & 7) + 1)
    for _ in range(_MAX_PARTS):
        if data[position] == 0x2C:
            return None
        if data[position] == 0x21:
            position += 1
        position += 1
        # Sub-blocks, of which an empty one is the last.
        while size := data[position]:
            position += 1 + size
            if position > _MAX_PARTS * 256:
                break
        position += 1
        if position > _MAX_PARTS * 256:
            break
    return _too_many(_MAX_PARTS, "blocks before its pixels")


def _check_bmp(data: bytes) -> str | None:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size < 40:
        return None
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    work = abs(width * height) + len(data)
    if compression in (1, 2) and work > _MAX_BMP_WORK:
        return (
            f"too large ({abs(width):,} x {abs(height):,} pixels in {len(data):,} "
            "bytes) for a compressed BMP; save it as PNG"
        )
    return None


class _Tag(NamedTuple):
    """An entry of a TIFF's directory: the number, type and place of its values."""

    kind: int
    count: int
    place: int

    def values(self, data: bytes, order: str) -> tuple[int, ...]:
        """Returns the values of a small or large unsigned integer type."""
        code = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}.get(self.kind)
        if code is None:
            return ()
        return struct.unpack_from(f"{order}{self.count}{code}", data, self.place)


def _check_tiff(data: bytes) -> str | None:
    order = "<" if data[:2] == b"II" else ">"
    tags = _tiff_tags(data, order)
    if tags is None:
        return _too_many(_MAX_TAGS, "tags")
    if any(x.count > _MAX_VALUES for x in tags.values() if x.kind not in _TEXTS):
        return _too_many(_MAX_VALUES, "values of a tag")

    def value(number: int, default: int) -> int:
        tag = tags.get(number, _Tag(0, 0, 0))
        return next(iter(tag.values(data, order)[:1]), default)

    num_pixels = value(_WIDTH, 0) * value(_HEIGHT, 0)
    if _TILE_WIDTH in tags:
        tile = value(_TILE_WIDTH, 0) * value(_TILE_HEIGHT, 0)
        if tile > max(_MAX_TILE, 4 * num_pixels):
            return (
                f"its tiles of {tile:,} pixels are larger than the image; save it again"
            )
    if value(_COMPRESSION, 1) in _JPEG_IN_TIFF:
        return _check_tiff_scans(data, order, tags, num_pixels)
    return None


def _check_tiff_scans(
    data: bytes, order: str, tags: Mapping[int, _Tag], num_pixels: int
) -> str | None:
    """Returns the reason to refuse the JPEGs that a TIFF consists of."""
    for places, sizes in _PIECES:
        if places not in tags or sizes not in tags:
            continue
        pieces = list(
            zip(
                tags[places].values(data, order),
                tags[sizes].values(data, order),
                strict=False,
            )
        )
        if sum(min(size, len(data)) for _, size in pieces) > 2 * len(data):
            return "its parts are larger than the file; save it again"
        scans = sum(_count_scans(data, start, size) for start, size in pieces)
        if scans * num_pixels > len(pieces) * max(
            _MAX_SCANNED_PIXELS, _FEW_SCANS * num_pixels
        ):
            return "a TIFF of JPEGs with many scans, which take too long; save it again"
    return None


def _tiff_tags(data: bytes, order: str) -> dict[int, _Tag] | None:
    """Returns the first directory's entries by number; None for too many."""
    if data[2:4] in (b"+\0", b"\0+"):
        count_format, entry, inline = f"{order}Q", struct.Struct(f"{order}HHQ"), 8
        (start,) = struct.unpack_from(f"{order}Q", data, 8)
    else:
        count_format, entry, inline = f"{order}H", struct.Struct(f"{order}HHL"), 4
        (start,) = struct.unpack_from(f"{order}L", data, 4)
    (num,) = struct.unpack_from(count_format, data, start)
    if num > _MAX_TAGS:
        return None
    position, tags = start + struct.calcsize(count_format), {}
    for _ in range(num):
        number, kind, count = entry.unpack_from(data, position)
        place = position + entry.size
        if count * _TIFF_SIZES.get(kind, 1) > inline:
            offset = f"{order}{'Q' if inline == 8 else 'L'}"
            (place,) = struct.unpack_from(offset, data, place)
        tags.setdefault(number, _Tag(kind, count, place))
        position += entry.size + inline
    return tags


def _too_many(most: int, parts: str) -> str:
    return f"more than {most:,} {parts}, which take too long; save it again"


# By the first byte, as the decoder compares the rest.
_CHECKS: Mapping[int, Callable[[bytes], str | None]] = {
    0xFF: _check_jpeg,
    ord("G"): _check_gif,
    ord("B"): _check_bmp,
    ord("I"): _check_tiff,
    ord("M"): _check_tiff,
}
