"""Formats of image files, known by their first bytes."""

from collections.abc import Callable
import re

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

Opener = Callable[..., ImageFile.ImageFile]

# Not `Image.open`, which warns of sizes itself and accepts formats that start programs.
_OPENERS: tuple[tuple[re.Pattern[bytes], Callable[..., ImageFile.ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.jpeg_factory),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    (re.compile(rb"(II|MM)(\*\0|\0\*|\+\0|\0\+)"), TiffImagePlugin.TiffImageFile),
    (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    *(
        ((re.compile(rb"....ftypavi[fs]", re.DOTALL), AvifImagePlugin.AvifImageFile),)
        if features.check("avif")
        else ()
    ),
)
# Formats that are not read, by their first bytes.
_OTHER_FORMATS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
    (re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  "), "JPEG 2000"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"\x00\x00\x01\x00"), "icon (ICO)"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*(<!--.*?-->\s*)*)?<svg", re.DOTALL), "SVG"),
)
# Number of bytes in which the name of another format is searched.
_MAX_HEADER = 1024
_CONVERT = "convert it to JPEG or PNG, e.g. by `magick IMAGE IMAGE.jpg`"


def find_opener(data: bytes) -> Opener | None:
    """Returns Pillow's reader of a file; None for a format that is not read.

    Args:
      data: Content of the file.
    """
    return next((opener for start, opener in _OPENERS if start.match(data)), None)


def describe_other(data: bytes) -> str:
    """Returns the reason that a file of another format is not read.

    Args:
      data: Content of the file.
    """
    first = f"{data[:4].decode('latin-1')!r}"
    for start, name in _OTHER_FORMATS:
        if start.match(data[:_MAX_HEADER]):
            return (
                f"not an image that can be read, but {name} (first bytes {first}): "
                f"{_CONVERT}"
            )
    return f"not an image (first bytes {first})"
