"""Regions of large images, decoded only when they are read.

Convention: a place is `(top, left)` in pixels from the upper left corner of an upright
image. Of a TIFF in tiles or strips only those under a region are read and decoded; an
image of another format is decoded whole. Decoded pixels stay in a cache, and are those
that `decode.decode_image` gives.
"""

import collections
from collections.abc import Callable, Sequence
import dataclasses
import functools
import importlib.util
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from deeprank_jax import errors, files
from deeprank_jax.data import decode
from deeprank_jax.data.resize import resize

if TYPE_CHECKING:
    import tifffile

_HAS_TIFFFILE = importlib.util.find_spec("tifffile") is not None
_MIB = 2**20
# TIFFs whose directories are in memory; one of a slide has some 100,000 entries.
_NUM_LAYOUTS = 16
# Side of the blocks of an overview in pixels.
_BLOCK_SIDE = 1024
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION_TAG, _CONTIGUOUS, _JPEG = 274, 1, 7
# Of a TIFF, with the number of samples of a pixel.
_GREY, _RGB, _YCBCR = (1, 1), (2, 3), (6, 3)
# Start of a JPEG, and the segment that tells a decoder whether its colours are YCbCr.
_JPEG_START, _ADOBE = b"\xff\xd8", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


class PixelCache:
    """Decoded pixels by key, of which those used last stay in memory."""

    def __init__(self, max_bytes: int):
        """Creates an empty cache.

        Args:
          max_bytes: Largest number of bytes; a larger array is not stored.
        """
        self._max_bytes = max_bytes
        self._arrays: collections.OrderedDict[object, np.ndarray] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Number of bytes in memory."""
        return self._num_bytes

    def get(self, key: object, create: Callable[[], np.ndarray]) -> np.ndarray:
        """Returns the array of a key, created if it is not in memory.

        Threads that need the same array at the same time may each create it.

        Args:
          key: Key of the array.
          create: Function that returns the array.
        """
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        array = create()
        with self._lock:
            if key not in self._arrays and array.nbytes <= self._max_bytes:
                self._arrays[key] = array
                self._num_bytes += array.nbytes
                while self._num_bytes > self._max_bytes:
                    _, oldest = self._arrays.popitem(last=False)
                    self._num_bytes -= oldest.nbytes
        return array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Segments:
    """Tiles or strips of a level of a TIFF.

    Attributes:
      size: Height and width of the level.
      side: Height and width of a segment; those at the right and lower edge may be
        smaller, or filled up.
      offsets: `[S]` ints, place of each segment in the file, row by row.
      counts: `[S]` ints, number of bytes of each; 0 for one that is empty.
      decode: Function from bytes (None for an empty segment) and number of a segment to
        its pixels `[1, h, w, C]` or None, its place, and the shape, as in tifffile.
    """

    size: tuple[int, int]
    side: tuple[int, int]
    offsets: np.ndarray
    counts: np.ndarray
    decode: Callable[..., Any]

    @property
    def num_columns(self) -> int:
        """Number of segments side by side."""
        return math.ceil(self.size[1] / self.side[1])


class LargeImages:
    """Image files, of which regions are read.

    Memory is that of the cache and, for each thread that reads, that of a whole image
    or a segment of a TIFF.
    """

    def __init__(
        self, paths: Sequence[str], *, level: int = 0, cache_mib: float = 256.0
    ):
        """Opens nothing yet.

        Args:
          paths: Paths of the files.
          level: Level of TIFF pyramids that is read; 0 is the full size.
          cache_mib: Memory for decoded pixels, in MiB.

        Raises:
          ValueError: A number is out of its range.
        """
        if level < 0:
            raise ValueError(f"level must be at least 0, got {level}.")
        if not 0 <= cache_mib < math.inf:
            raise ValueError(f"cache_mib must be at least 0, got {cache_mib}.")
        self._paths = paths
        self._level = level
        self._cache = PixelCache(int(cache_mib * _MIB))
        self._layout = functools.lru_cache(_NUM_LAYOUTS)(self._read_layout)

    def size(self, number: int) -> tuple[int, int]:
        """Returns height and width of an image, without decoding it.

        Args:
          number: Number of the image.

        Raises:
          BadImageError: The file is not a usable image.
          DataError: It lacks the level.
          OSError: It cannot be read.
        """
        segments = self._layout(number)
        if segments is not None:
            return segments.size
        data = files.read_bytes(self._paths[number], decode.MAX_BYTES)
        width, height = decode.read_size(data, decode.MAX_PIXELS)
        return height, width

    def is_decoded_whole(self, number: int) -> bool:
        """Returns whether a region of an image takes the decoding of all of it.

        Args:
          number: Number of the image.

        Raises:
          BadImageError: The file is not a usable image.
          DataError: It lacks the level.
          OSError: It cannot be read.
        """
        return self._layout(number) is None

    def read(
        self, number: int, top: int, left: int, height: int, width: int
    ) -> np.ndarray:
        """Returns a region of an image, `[height, width, 3]` uint8 in new memory.

        Args:
          number: Number of the image.
          top: First row.
          left: First column.
          height: Number of rows, at least 1.
          width: Number of columns, at least 1.

        Raises:
          BadImageError: The file is not a usable image, or smaller than the region.
          DataError: It lacks the level.
          OSError: It cannot be read.
        """
        segments = self._layout(number)
        if segments is None:
            whole = self._cache.get(number, lambda: self._decode_whole(number))
            _check_inside(whole.shape[:2], top + height, left + width)
            return whole[top : top + height, left : left + width].copy()
        _check_inside(segments.size, top + height, left + width)
        region = self._join_segments(number, segments, top, left, height, width)
        return decode.decode_image(region)

    def overview(self, number: int, max_side: int) -> np.ndarray:
        """Returns a whole image, shrunk, `[h, w, 3]` uint8, block by block.

        Blocks that cannot be decoded are white.

        Args:
          number: Number of the image.
          max_side: Largest height and width; a smaller image keeps its size.

        Raises:
          BadImageError, DataError, OSError: See `read`.
        """
        height, width = self.size(number)
        factor = math.ceil(max(height, width) / max_side)
        side = factor * max(1, _BLOCK_SIDE // factor)
        rows = []
        for y in range(0, height, side):
            num_rows = min(side, height - y)
            blocks = []
            for x in range(0, width, side):
                num_columns = min(side, width - x)
                try:
                    block = self.read(number, y, x, num_rows, num_columns)
                except decode.BadImageError:
                    block = np.full((num_rows, num_columns, 3), 255, np.uint8)
                shrunk = -(-num_rows // factor), -(-num_columns // factor)
                blocks.append(resize(block, *shrunk))
            rows.append(np.concatenate(blocks, axis=1))
        return np.concatenate(rows)

    def _decode_whole(self, number: int) -> np.ndarray:
        data = files.read_bytes(self._paths[number], decode.MAX_BYTES)
        return decode.decode_image(data)

    def _join_segments(
        self,
        number: int,
        segments: _Segments,
        top: int,
        left: int,
        height: int,
        width: int,
    ) -> np.ndarray:
        """Returns a region `[height, width, C]` of the segments that cover it."""
        side_y, side_x = segments.side
        region = None
        for row in range(top // side_y, (top + height - 1) // side_y + 1):
            for column in range(left // side_x, (left + width - 1) // side_x + 1):
                index = row * segments.num_columns + column
                pixels = self._cache.get(
                    (number, index),
                    lambda index=index: self._decode_segment(number, segments, index),
                )
                if region is None:
                    region = np.zeros((height, width, pixels.shape[2]), np.uint8)
                y, x = row * side_y, column * side_x
                part = pixels[max(top - y, 0) : top + height - y]
                part = part[:, max(left - x, 0) : left + width - x]
                start_y, start_x = max(y - top, 0), max(x - left, 0)
                region[
                    start_y : start_y + part.shape[0],
                    start_x : start_x + part.shape[1],
                ] = part
        assert region is not None, "a region has at least one pixel"
        return region

    def _decode_segment(
        self, number: int, segments: _Segments, index: int
    ) -> np.ndarray:
        """Returns a segment, `[h, w, C]` uint8."""
        data = None
        if segments.counts[index]:
            with files.open_file(self._paths[number]) as file:
                file.seek(int(segments.offsets[index]))
                data = file.read(int(segments.counts[index]))
        # Damaged data can make decoders raise anything.
        try:
            pixels, _, shape = segments.decode(data, index)
        except Exception as error:
            raise decode.BadImageError(f"cannot be decoded ({error})") from error
        # An empty segment is black, as tifffile reads it.
        return np.zeros(shape[1:], np.uint8) if pixels is None else pixels[0]

    def _read_layout(self, number: int) -> _Segments | None:
        """Returns the segments of a TIFF; None for an image that is decoded whole.

        Raises:
          BadImageError: The file is a TIFF that cannot be read.
          DataError: It lacks the level.
        """
        path = self._paths[number]
        with files.open_file(path) as file:
            is_tiff = file.read(4) in _TIFF_STARTS
        if is_tiff and _HAS_TIFFFILE:
            segments, num_levels = _read_tiff(path, self._level)
        else:
            segments, num_levels = None, 1
        if segments is None and self._level:
            levels = f"{num_levels} level{'s' if num_levels > 1 else ''}"
            raise errors.DataError(
                f"{files.printable(path)}: has no level {self._level} that can be "
                f"read, it has {levels}, of which 0 is the full size; lower the level, "
                "or leave the image out."
            )
        return segments


def _check_inside(size: tuple[int, ...], bottom: int, right: int) -> None:
    """Checks that a region ends within an image.

    Raises:
      BadImageError: It does not.
    """
    if bottom > size[0] or right > size[1]:
        raise decode.BadImageError(
            f"has changed: it has {size[1]:,} x {size[0]:,} pixels now"
        )


def _read_tiff(
    path: str | os.PathLike[str], level: int
) -> tuple[_Segments | None, int]:
    """Returns the segments of a level, and the number of levels.

    The segments are None if there is no such level, or tifffile cannot give the pixels
    that `decode.decode_image` does: of other types, colours or compressions.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            levels = file.series[0].levels
            if level >= len(levels):
                return None, len(levels)
            page = levels[level].keyframe
            if not _is_plain(page):
                return None, len(levels)
            return _as_segments(page), len(levels)
    # Damaged headers can make its reader raise anything.
    except Exception as error:
        raise decode.BadImageError(
            f"has a header that cannot be read ({error})"
        ) from error


def _is_plain(page: "tifffile.TiffPage") -> bool:
    """Returns whether a page is upright, grey or RGB, of 8 bits, and can be decoded."""
    import tifffile

    colors = (page.photometric, page.samplesperpixel)
    is_jpeg = page.compression == _JPEG
    return (
        page.dtype == np.uint8
        and page.bitspersample == 8
        and page.imagedepth == 1
        and page.planarconfig == _CONTIGUOUS
        and colors in ((_GREY, _RGB, _YCBCR) if is_jpeg else (_GREY, _RGB))
        and page.tags.valueof(_ORIENTATION_TAG, 1) == 1
        and (is_jpeg or page.compression in tifffile.TIFF.DECOMPRESSORS)
        and math.prod(_side_of(page)) <= decode.MAX_PIXELS
    )


def _side_of(page: "tifffile.TiffPage") -> tuple[int, int]:
    """Returns height and width of a tile or strip."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _as_segments(page: "tifffile.TiffPage") -> _Segments:
    return _Segments(
        size=(page.imagelength, page.imagewidth),
        side=_side_of(page),
        offsets=np.array(page.dataoffsets, np.uint64),
        counts=np.array(page.databytecounts, np.uint64),
        decode=_jpeg_decoder(page) if page.compression == _JPEG else page.decode,
    )


def _jpeg_decoder(page: "tifffile.TiffPage") -> Callable[..., Any]:
    """Returns a decoder of segments that are JPEGs, as slides often have them.

    That of tifffile needs the package imagecodecs.
    """
    # Tables that all segments share are a JPEG without an image.
    tables = (page.jpegtables or b"")[len(_JPEG_START) : -len(_JPEG_START)]
    colors = b""
    if page.samplesperpixel > 1:
        colors = _ADOBE + bytes([(page.photometric, page.samplesperpixel) == _YCBCR])
    shape = (1, *_side_of(page), 3)

    def decode_segment(
        data: bytes | None, index: int
    ) -> tuple[np.ndarray | None, int, tuple[int, ...]]:
        if data is None:
            return None, index, shape
        joined = _JPEG_START + colors + tables + data[len(_JPEG_START) :]
        return decode.decode_image(joined)[None], index, shape

    return decode_segment
