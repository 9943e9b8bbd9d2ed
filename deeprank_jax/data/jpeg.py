"""Structure of JPEG files: the end, and parts that are missing before it.

Decoders fill a missing part with grey, and report it on stderr without a name.
"""

import contextlib
import dataclasses
import io
import re

import numpy as np
from PIL import JpegImagePlugin

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_END, _SCAN, _RESTART_INTERVAL, _FIRST_RESTART = 0xD9, 0xDA, 0xDD, 0xD0
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_NUM_COEFFICIENTS = 64
# Lowest bit of a coefficient of which no scan has any.
_NO_BIT = 255
# No code of any table, as long as what a decoder reads ahead.
_AHEAD = b"\xff\x00" * 8
# Value of all pixels of a block without data.
_GREY = 128


@dataclasses.dataclass
class JpegFile:
    """Segments of a JPEG file before its end.

    Attributes:
      data: Content of the file.
      end: Position of the end marker.
      frame: Marker of the frame's kind; 0 without one.
      frame_header: Content of the frame's segment.
      restart_interval: Number of blocks between two restart markers; 0 for none.
      scans: Content of each scan's header, and the position behind it.
    """

    data: bytes
    end: int = 0
    frame: int = 0
    frame_header: bytes = b""
    restart_interval: int = 0
    scans: list[tuple[bytes, int]] = dataclasses.field(default_factory=list)

    def has_all_scans(self) -> bool:
        """Returns False if a scan or a part between restart markers is missing."""
        if self.frame == _PROGRESSIVE:
            return self._has_all_bits()
        if self.frame in _SEQUENTIAL:
            return self._has_all_components() and self._has_all_restarts()
        return True

    def is_filled_up(self, image: np.ndarray) -> bool:
        """Returns True if the image ends in grey because its data end before.

        Args:
          image: `[H, W, 3]` uint8, image as decoded, not turned.
        """
        # Nearly all images end here. Blocks are drawn from the upper left on.
        if (image[-1, -1] != _GREY).any() or self.frame not in _SEQUENTIAL:
            return False
        # Without an end marker the decoder waits for more data instead. It reads a few
        # bytes ahead.
        data = self.data[: self.end] + _AHEAD
        decoded = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        with contextlib.suppress(OSError):
            decoded.load()
        decoded.tile = []
        # Rows that were not reached are black.
        return bool((np.asarray(decoded.convert("RGB"))[-1, -1] != _GREY).any())

    def _component_ids(self) -> bytes:
        return self.frame_header[6::3]

    def _has_all_components(self) -> bool:
        scanned = set()
        for header, _ in self.scans:
            scanned |= set(header[1 : 1 + 2 * header[0] : 2])
        return scanned >= set(self._component_ids())

    def _has_all_bits(self) -> bool:
        """Returns False if a coefficient has not all of its bits."""
        ids = self._component_ids()
        lowest = np.full((256, _NUM_COEFFICIENTS), _NO_BIT)
        for header, _ in self.scans:
            components = list(header[1 : 1 + 2 * header[0] : 2])
            first, last, bits = header[1 + 2 * header[0] :][:3]
            lowest[components, first : last + 1] = bits & 15
        lowest = lowest[list(ids)]
        has_detail = (lowest[:, 1:] != _NO_BIT).any()
        is_cut = ((lowest > 0) & (lowest != _NO_BIT)).any()
        return bool(has_detail and (lowest[:, 0] == 0).all() and not is_cut)

    def _has_all_restarts(self) -> bool:
        if not self.restart_interval or len(self.scans) != 1:
            return True
        height, width = np.frombuffer(self.frame_header[1:5], ">u2").tolist()
        factors = list(self.frame_header[7::3])
        if len(factors) == 1:  # The factors of a single component have no effect.
            block_width = block_height = 8
        else:
            block_width = 8 * max(factor >> 4 for factor in factors)
            block_height = 8 * max(factor & 15 for factor in factors)
        num_blocks = -(-width // block_width) * -(-height // block_height)
        start = self.scans[0][1]
        scan = np.frombuffer(self.data, np.uint8, self.end - start, start)
        kinds = scan[np.flatnonzero(scan[:-1] == 0xFF) + 1]
        num_restarts = np.count_nonzero((kinds & 0xF8) == _FIRST_RESTART)
        return num_restarts >= -(-num_blocks // self.restart_interval) - 1


def read_segments(data: bytes) -> JpegFile | None:
    """Reads the segments up to the end marker, ignoring that of a thumbnail.

    Args:
      data: Content of a JPEG file.

    Returns:
      The segments; None for a file without its end.

    Raises:
      ValueError: A segment has a length that does not suit its content.
    """
    file, position = JpegFile(data), 2
    while marker := _MARKER.search(data, position):
        kind = marker[0][1]
        if kind == _END:
            file.end = marker.start()
            return file
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
        segment = data[marker.end() + 2 : position]
        _check_length(kind, segment)
        if kind in (*_SEQUENTIAL, _PROGRESSIVE):
            file.frame, file.frame_header = kind, segment
        elif kind == _RESTART_INTERVAL:
            file.restart_interval = int.from_bytes(segment)
        elif kind == _SCAN:
            file.scans.append((segment, position))
    return None


def _check_length(kind: int, segment: bytes) -> None:
    """Checks a segment that is used here; decoders accept no other lengths.

    Raises:
      ValueError: It is too short or too long.
    """
    if kind in (*_SEQUENTIAL, _PROGRESSIVE):
        # Precision, height, width, and three bytes per component.
        is_whole = len(segment) > 6 and len(segment) == 6 + 3 * segment[5]
    elif kind == _SCAN:
        # Two bytes per component, first and last coefficient, and bits.
        is_whole = len(segment) > 4 and len(segment) == 4 + 2 * segment[0]
    else:
        is_whole = kind != _RESTART_INTERVAL or len(segment) == 2
    if not is_whole:
        raise ValueError(f"a segment {kind:#x} of {len(segment)} bytes")
