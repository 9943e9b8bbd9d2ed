"""Hostile JPEG and PNG files."""

import io
import re
import struct
import zlib

import numpy as np
from PIL import Image

from tools.faults.hostile_images.kinds import content


def jpeg(width=64, height=48, seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    image = Image.fromarray(pixels).resize((width, height))
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def repeat_last_scan(data, num):
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * num + data[-2:]


@content
def jpeg_400_scans(rng):
    data = jpeg(4000, 3000 + int(rng.integers(100)), progressive=True)
    return repeat_last_scan(data, 400)


@content
def jpeg_many_small_scans(rng):
    return repeat_last_scan(jpeg(progressive=True), 20_000 + int(rng.integers(999)))


@content
def jpeg_hidden_scans(rng):
    """Hides scans behind a marker without a length, and doubles each first byte."""
    data = jpeg(4000, 3000, progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = b"\xff\x01\xff" + data[start:-2]
    return data[:start] + scan * 400 + data[-2:]


@content
def jpeg_a_million_comments(rng):
    data = jpeg()
    return data[:2] + b"\xff\xfe\x00\x03x" * 1_000_000 + data[2:]


@content
def jpeg_without_end(rng):
    data = jpeg(300, 200)
    return data[: int(len(data) * rng.uniform(0.3, 0.9))]


def resized_jpeg(height, width, data=None):
    start = re.compile(rb"(\xff[\xc0\xc2]..\x08)(....)", re.DOTALL)
    size = struct.pack(">HH", height, width)
    return start.sub(lambda m: m[1] + size, data or jpeg(), count=1)


@content
def jpeg_of_4_gigapixels(rng):
    return resized_jpeg(65_535 - int(rng.integers(9)), 65_535)


@content
def jpeg_without_pixels(rng):
    return resized_jpeg(48, 0)


@content
def jpeg_of_tags(rng):
    """Many EXIF tags with the same large value, in a picture that is cut off."""
    tags = 5000
    start = 8 + 2 + 12 * tags + 4
    entries = b"".join(
        struct.pack("<HHLL", tag, 7, 65_000 - start, start)
        for tag in range(1, 1 + tags)
    )
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(4)
    block = b"Exif\0\0" + block.ljust(65_000, b"x")
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    data = jpeg()
    return data[:2] + segment + data[2:-200]


@content
def jpeg_of_noise(rng):
    return b"\xff\xd8\xff\xe0" + rng.bytes(10_000)


# PNG.


def chunk(name, data=b""):
    crc = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + crc


def png(width=64, height=48, *, chunks=(), pixels=None, depth=8, color=2):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    if pixels is None:
        pixels = zlib.compress(bytes(height * (width * 3 + 1)))
    end = chunk(b"IDAT", pixels) + chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + end


@content
def png_of_4_exapixels(rng):
    return png(2**31 - 1 - int(rng.integers(9)), 2**31 - 1, pixels=b"x")


@content
def png_of_a_gigapixel(rng):
    return png(
        30_000 + int(rng.integers(99)), 40_000, pixels=zlib.compress(bytes(10**7))
    )


@content
def png_a_million_chunks(rng):
    return png(chunks=[chunk(b"IDAT")] * (1_000_000 + int(rng.integers(99))))


@content
def png_of_text(rng):
    text = b"k\0\0" + zlib.compress(bytes(2 * 10**8 + int(rng.integers(99))))
    return png(chunks=[chunk(b"zTXt", text), chunk(b"tRNS", bytes(6))])


@content
def png_of_many_texts(rng):
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6)))
    return png(chunks=[*[text] * 500, chunk(b"tRNS", bytes(6))])


@content
def png_of_a_profile(rng):
    """Its colour profile unpacks to 300 MB, and it has no pixels."""
    profile = b"p\0\0" + zlib.compress(bytes(3 * 10**8))
    return png(chunks=[chunk(b"iCCP", profile), chunk(b"tRNS", bytes(6))], pixels=b"x")


@content
def png_without_pixels(rng):
    return png(7000, 7000 - int(rng.integers(9)), pixels=zlib.compress(bytes(10)))[:-12]


@content
def png_without_end(rng):
    return png(300, 200)[: -int(rng.integers(5, 40))]


@content
def png_damaged(rng):
    data = bytearray(png(300, 200))
    data[60 + int(rng.integers(20))] ^= 1 << int(rng.integers(8))
    return bytes(data)


@content
def png_without_a_size(rng):
    return png(0, int(rng.integers(1, 99)), pixels=zlib.compress(b""))
