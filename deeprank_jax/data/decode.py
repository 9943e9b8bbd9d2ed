"""Decoding and resizing of images, the same in training and in use.

Convention: images are uint8 RGB `[H, W, 3]`, upright, with transparent pixels on white.
Files are JPEG, PNG, WebP, AVIF, BMP, TIFF or GIF, whatever their names end in.
"""

from collections.abc import Callable
import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image

from deeprank_jax import errors
from deeprank_jax.data import formats, image_limits, jpeg
from deeprank_jax.data.resize import HAS_OPENCV, resize

MAX_PIXELS = 50_000_000
_BLENDED_PIXELS = 2**18
# Largest image file, enough for `MAX_PIXELS` without compression.
MAX_BYTES = 2**28

if HAS_OPENCV:
    import cv2

    # The readers bring their own threads; OpenCV's would compete for the cores.
    cv2.setNumThreads(1)
    # A bad file is reported once, by its name, and not by OpenCV as well.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# Pillow warns of broken EXIF data without the name of the file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.Tiff")

_ORIENTATION_TAG = 0x0112
_ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image.swapaxes(0, 1)[::-1],
}
# Those in which height and width change places.
_QUARTER_TURNS = (5, 6, 7, 8)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Length, type, 13 bytes and checksum.
_IHDR_BYTES = 25
# Grey, RGB, a palette, RGBA.
_PNG_COLORS, _PNG_PALETTE = (0, 2, 3, 6), 3
# Pillow's names; an MPO is a JPEG followed by others, as many phones write it.
_JPEG_FORMATS = ("JPEG", "MPO")
_MISSING_PART = "damaged (a JPEG with a missing part)"
_CV2_JPEG_MODES = ("L", "RGB")
_CV2_PNG_MODES = ("L", "P", "RGB", "RGBA", "I;16")
# Chunks that affect pixels; libpng prints warnings about many others.
_CV2_PNG_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_BITS_TAG = 258
_MAX_8_BITS, _MAX_12_BITS, _MAX_16_BITS = 255, 4_095, 65_535
# Limits of libpng and OpenCV.
_CV2_MAX_SIDE, _CV2_MAX_PIXELS = 1_000_000, 2**30


class BadImageError(errors.DataError):
    """A file is not a usable image; the message says why."""


def decode_image(
    data: bytes | np.ndarray | Image.Image, *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decodes an image.

    Args:
      data: Encoded image, of which the first frame is used; a PIL image; or a decoded
        `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`, uint8 or uint16.
      max_pixels: Largest number of pixels; larger images are refused by their header,
        before they use memory. Pillow's own limit, which is global, is raised to this.

    Returns:
      `[H, W, 3]` uint8 RGB.

    Raises:
      BadImageError: The data is no image, truncated, too large, or has an unknown
        layout.
    """
    if isinstance(data, np.ndarray):
        if data.ndim > 1:
            _check_size(data.shape[1::-1], max_pixels)
        return _to_rgb(data)
    if isinstance(data, Image.Image):
        _check_size(data.size, max_pixels)
        return _decode_with_pillow(data)
    if not data:
        raise BadImageError("empty file (0 bytes)")
    plain = _decode_plain_png(data, max_pixels)
    if plain is not None:
        return plain
    _raise_limit(max_pixels)
    header = _open(data, max_pixels)
    _check_size(header.size, max_pixels)
    image = None
    if header.format in _JPEG_FORMATS:
        image = _decode_jpeg(data, header)
    elif header.format == "PNG":
        image = _decode_png(data, header)
    return _decode_with_pillow(header) if image is None else image


def read_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Returns width and height of an encoded image, upright, from its header.

    Args:
      data: Content of an image file.
      max_pixels: Largest number of pixels.

    Raises:
      BadImageError: The header cannot be read, or the image is too large.
    """
    with _open(data, max_pixels) as header:
        _check_size(header.size, max_pixels)
        # That of a TIFF is upright already. Pillow would decode a PNG to find a later
        # orientation.
        is_upright = header.format == "TIFF" or (
            header.format == "PNG" and "exif" not in header.info
        )
        turns = not is_upright and _orientation(header) in _QUARTER_TURNS
        return header.size[::-1] if turns else header.size


def resize_image(image: np.ndarray, size: int, fit: str = "crop") -> np.ndarray:
    """Resizes an image to a square.

    Args:
      image: `[H, W, 3]` uint8, image.
      size: Side of the square in pixels.
      fit: Method: `"crop"` to the central square, `"pad"` the shorter side with white,
        or `"stretch"`, which changes the aspect ratio.

    Returns:
      `[size, size, 3]` uint8, in new memory.

    Raises:
      ValueError: `fit` is unknown.
    """
    height, width = image.shape[:2]
    if fit == "crop":
        side = min(height, width)
        y, x = (height - side) // 2, (width - side) // 2
        return resize(image[y : y + side, x : x + side], size, size)
    if fit == "stretch":
        return resize(image, size, size)
    if fit == "pad":
        scale = size / max(height, width)
        inner = [max(1, round(side * scale)) for side in (height, width)]
        y, x = ((size - side) // 2 for side in inner)
        padded = np.full((size, size, 3), 255, np.uint8)
        padded[y : y + inner[0], x : x + inner[1]] = resize(image, *inner)
        return padded
    raise _bad_fit(fit)


def check_fit(fit: str) -> None:
    """Checks the name of a method of `resize_image`.

    Raises:
      ValueError: `fit` is unknown.
    """
    if fit not in ("crop", "pad", "stretch"):
        raise _bad_fit(fit)


def _bad_fit(fit: str) -> ValueError:
    return ValueError(f'fit must be "crop", "pad" or "stretch", got {fit!r}.')


def _raise_limit(max_pixels: int) -> None:
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Reads the header."""
    opener = formats.find_opener(data)
    if opener is None:
        raise BadImageError(formats.describe_other(data))
    _refuse(image_limits.check_header(data))
    try:
        return opener(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(_too_large(str(error), max_pixels)) from error
    # A damaged header can make Pillow's readers raise anything.
    except Exception as error:
        raise BadImageError(f"has a header that cannot be read ({error})") from error


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise BadImageError(reason)


def _check_size(size: tuple[int, ...], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        reason = _too_large(f"{width:,} x {height:,} pixels", max_pixels)
        raise BadImageError(reason)


def _too_large(size: str, max_pixels: int) -> str:
    return (
        f"too large ({size}); shrink it, or in training raise "
        f"config.data.max_pixels={max_pixels:,}"
    )


def _suits_opencv(size: tuple[int, int]) -> bool:
    fits = max(size) <= _CV2_MAX_SIDE and size[0] * size[1] <= _CV2_MAX_PIXELS
    return HAS_OPENCV and fits


def _decode_jpeg(data: bytes, header: Image.Image) -> np.ndarray | None:
    """Returns the image, or None if Pillow must read it."""
    try:
        return _decode_whole_jpeg(data, header)
    except BadImageError:
        raise
    # Damaged segments can make the checks of their content raise anything.
    except Exception as error:
        raise BadImageError(_MISSING_PART) from error


def _decode_whole_jpeg(data: bytes, header: Image.Image) -> np.ndarray | None:
    file = jpeg.read_segments(data)
    if file is None:
        raise BadImageError("truncated (a JPEG without its end)")
    if not file.has_all_scans():
        raise BadImageError(_MISSING_PART)
    if header.mode not in _CV2_JPEG_MODES or not _suits_opencv(header.size):
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        return None
    if file.is_filled_up(image):
        raise BadImageError(_MISSING_PART)
    return _upright(image, _orientation(header))


def _decode_plain_png(data: bytes, max_pixels: int) -> np.ndarray | None:
    """Returns the image of a PNG without special features, else None.

    Pillow takes longer to read its header than OpenCV takes to read its pixels.
    """
    if not data.startswith(_PNG_SIGNATURE):
        return None
    chunks = _png_chunks(data)
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != _IHDR_BYTES:
        return None
    width, height, depth, color = struct.unpack(">IIBB", chunks[0][1][8:18])
    kinds = {kind for kind, _ in chunks}
    # OpenCV handles transparent colours of a palette itself.
    special = {b"eXIf", *(() if color == _PNG_PALETTE else (b"tRNS",))} & kinds
    if special or depth != 8 or color not in _PNG_COLORS or not width * height:
        return None
    _check_size((width, height), max_pixels)
    return _read_png(chunks) if _suits_opencv((width, height)) else None


def _decode_png(data: bytes, header: Image.Image) -> np.ndarray | None:
    """Returns the image, or None if Pillow must read it."""
    chunks = _png_chunks(data)
    if chunks is None:
        raise BadImageError("truncated or damaged (a PNG without its end)")
    transparent_color = "transparency" in header.info and header.mode != "P"
    special = b"eXIf" in {kind for kind, _ in chunks} or transparent_color
    fits = header.mode in _CV2_PNG_MODES and _suits_opencv(header.size)
    return None if special or not fits else _read_png(chunks)


def _read_png(chunks: list[tuple[bytes, memoryview]]) -> np.ndarray | None:
    """Returns the image as OpenCV reads it, None if it cannot.

    Without the chunks of an animation, its first frame remains.
    """
    needed = (chunk for kind, chunk in chunks if kind in _CV2_PNG_CHUNKS)
    data = b"".join((_PNG_SIGNATURE, *needed))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.ndim == 3:
        order = [2, 1, 0, 3][: image.shape[2]]
        image = image[..., order]
    return _to_rgb(image)


def _decode_with_pillow(header: Image.Image) -> np.ndarray:
    try:
        header.load()
        if header.format == "TIFF":
            _check_depth(header)
        image = _upright(_pillow_to_array(header), _orientation(header))
    except BadImageError:
        raise
    # Damaged data can make Pillow's readers raise anything.
    except Exception as error:
        raise BadImageError(f"cannot be decoded ({error})") from error
    return _to_rgb(image)


def _pillow_to_array(image: Image.Image) -> np.ndarray:
    """Returns `[H, W]` or `[H, W, C]`, uint8 or uint16."""
    if image.mode == "F":
        raise BadImageError(
            "has floating-point pixels; save it with 8 bits per channel"
        )
    if image.mode == "I":
        return _to_16_bits(np.asarray(image))
    if image.mode.startswith("I"):
        return np.asarray(image, np.uint16)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _to_16_bits(image: np.ndarray) -> np.ndarray:
    """Returns `[H, W]` int32 as uint16.

    Raises:
      BadImageError: A value is out of the range of 16 bits.
    """
    low, high = int(image.min()), int(image.max())
    if low < 0 or high > _MAX_16_BITS:
        raise BadImageError(
            f"has values from {low:,} to {high:,}, expected 0 to {_MAX_16_BITS:,}; "
            "save it with 8 bits per channel"
        )
    return image.astype(np.uint16)


def _check_depth(image: Image.Image) -> None:
    """Checks a colour TIFF of 16 bits, of which Pillow keeps the upper 8.

    Raises:
      BadImageError: The upper bits are not used, so that the image would be black.
    """
    depths = image.tag_v2.get(_BITS_TAG, ())  # pyrefly: ignore[missing-attribute]
    if image.mode not in ("RGB", "RGBA") or 16 not in depths:
        return
    low, high = np.asarray(image)[..., :3].min(), np.asarray(image)[..., :3].max()
    if low < high <= _MAX_12_BITS >> 8:
        raise BadImageError(
            "uses 12 of its 16 bits, so that it would be black; save it with 8 bits "
            "per channel"
        )


def _scale_16_bits(image: np.ndarray) -> np.ndarray:
    """Returns a uint16 image as uint8, by the number of bits that it uses.

    A flat image does not say how many those are: it is taken to use all.
    """
    low, high = image.min(), image.max()
    if low < high <= _MAX_8_BITS:
        return image.astype(np.uint8)
    if low < high <= _MAX_12_BITS:
        # Repeats the upper bits as the lower ones, so that 4,095 becomes 65,535.
        image = image << 4 | image >> 8
    # Rounds n / 257, which maps 65,535 to 255.
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    """Converts grey, alpha and 16 bits."""
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
        raise BadImageError(
            f"has the shape {image.shape}; expected [H, W] or [H, W, 1, 3 or 4]"
        )
    if image.dtype == np.uint16:
        image = _scale_16_bits(image)
    if image.dtype != np.uint8:
        raise BadImageError(f"has the type {image.dtype}; expected uint8 or uint16")
    if channels == 4:
        return _on_white(image)
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image)


def _on_white(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    rows = max(1, _BLENDED_PIXELS // width)
    if height <= rows:
        return _blend(image)
    # In bands, as each pixel takes 24 bytes on the way.
    blended = np.empty((height, width, 3), np.uint8)
    for start in range(0, height, rows):
        blended[start : start + rows] = _blend(image[start : start + rows])
    return blended


def _blend(image: np.ndarray) -> np.ndarray:
    alpha = image[..., 3:].astype(np.uint16)
    darkness = alpha * (255 - image[..., :3]) + 128
    # Rounds n / 255 without leaving 16 bits.
    darkness = (darkness + (darkness >> 8)) >> 8
    return (255 - darkness).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 where there is none or it is unreadable."""
    if image.format in _JPEG_FORMATS and "exif" not in image.info:
        return 1
    # Broken EXIF data can make Pillow raise anything.
    with contextlib.suppress(Exception):
        return image.getexif().get(_ORIENTATION_TAG, 1)
    return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation not in _ORIENTATIONS:
        return image
    return np.ascontiguousarray(_ORIENTATIONS[orientation](image))


def _png_chunks(data: bytes) -> list[tuple[bytes, memoryview]] | None:
    """Returns type and bytes of the chunks; None if truncated or damaged."""
    view, position, chunks = memoryview(data), len(_PNG_SIGNATURE), []
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        end = position + 8 + length
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4]):
            return None
        chunks.append((kind, view[position : end + 4]))
        if kind == b"IEND":
            return chunks
        position = end + 4
        if len(chunks) > image_limits.MAX_PNG_CHUNKS:
            _refuse(f"a PNG of more than {len(chunks) - 1:,} chunks; save it again")
    return None
