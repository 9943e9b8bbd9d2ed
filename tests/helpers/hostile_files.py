"""Files that bear the name of an image and were made to harm their reader.

Each kind takes time or memory without limit from a reader that believes it, or is a
thing that is no file. None holds an image that should be used.
"""

from collections.abc import Callable, Mapping
import io
import os
import pathlib
import pickle
import re
import socket
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

Rng = np.random.Generator
Make = Callable[[pathlib.Path, Rng], None]
KINDS: dict[str, Make] = {}


def hostile_files(
    folder: str | os.PathLike[str], seed: int = 0
) -> Mapping[str, pathlib.Path]:
    """Writes one file of each kind into a folder, and returns their paths by name.

    Args:
      folder: Folder to write to; created if it does not exist.
      seed: Seed of the sizes and places that vary.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, (name, make) in enumerate(KINDS.items()):
        kind = name.partition("_")[0]
        suffix = kind if kind in ("png", "gif", "webp", "bmp", "tif") else "jpg"
        paths[name] = folder / f"{name}.{suffix}"
        make(paths[name], np.random.default_rng([seed, number]))
    return paths


def kind(make: Make) -> Make:
    KINDS[make.__name__] = make
    return make


def content(make: Callable[[Rng], bytes]) -> Callable[[Rng], bytes]:
    KINDS[make.__name__] = lambda path, rng: path.write_bytes(make(rng)) and None
    return make


# Things that are no regular file, or no small one.


@kind
def pipe(path, rng):
    os.mkfifo(path)


@kind
def link_to_pipe(path, rng):
    os.mkfifo(path.with_name(f".{path.name}.pipe"))
    path.symlink_to(f".{path.name}.pipe")


@kind
def unix_socket(path, rng):
    # The path of a socket may have 107 characters; a folder of tests has more.
    before = pathlib.Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


@kind
def link_to_zero(path, rng):
    path.symlink_to("/dev/zero")


@kind
def link_to_terminal(path, rng):
    path.symlink_to("/dev/tty")


@kind
def link_to_random(path, rng):
    path.symlink_to("/dev/urandom")


@kind
def link_to_itself(path, rng):
    path.symlink_to(path.name)


@kind
def link_to_nothing(path, rng):
    path.symlink_to("nowhere.jpg")


@kind
def link_to_memory(path, rng):
    path.symlink_to("/proc/self/mem")


@kind
def link_through_a_file(path, rng):
    path.with_name(f".{path.name}.txt").write_text("x")
    path.symlink_to(f".{path.name}.txt/x.jpg")


@kind
def sparse_ten_gigabytes(path, rng):
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff\xe0")
        file.truncate(10 * 2**30 + int(rng.integers(2**20)))


# Content of other kinds.


@content
def no_bytes(rng):
    return b""


@content
def zeros(rng):
    return bytes(int(rng.integers(1, 100)))


@content
def page(rng):
    return b"<html><body>404 Not Found</body></html>"


@content
def postscript(rng):
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n"


@content
def drawing(rng):
    return b'<svg xmlns="http://www.w3.org/2000/svg"><script>x()</script></svg>'


@content
def pickled(rng):
    return pickle.dumps({"call": os.getcwd})


@content
def archive(rng):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))
    return file.getvalue()


# JPEG.


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


# GIF.


def gif(width, height, blocks=b"", frame=(8, 8)):
    image = struct.pack("<BHHHHB", 0x2C, 0, 0, *frame, 0)
    return (
        struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80, 0, 0)
        + bytes(6) + blocks + image + b"\x02\x02\x4c\x01\x00" + b";"
    )  # fmt: skip


@content
def gif_of_4_gigapixels(rng):
    return gif(65_535, 65_535 - int(rng.integers(9)))


@content
def gif_with_a_larger_frame(rng):
    return gif(8, 8, frame=(65_535, 65_535 - int(rng.integers(9))))


@content
def gif_of_comments(rng):
    comment = b"\x21\xfe" + (b"\xff" + bytes(255)) * 100_000 + b"\0"
    return gif(8, 8, comment)[:-9]


@content
def gif_a_million_extensions(rng):
    return gif(8, 8, b"\x21\xfe\x01x\x00" * (1_000_000 + int(rng.integers(99))))[:-9]


@content
def gif_without_a_frame(rng):
    return gif(8, 8)[: 19 + int(rng.integers(9))]


# WebP.


def riff(*chunks):
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp(width=64, height=48):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(file, "WEBP")
    return file.getvalue()


@content
def webp_of_4_gigapixels(rng):
    size = struct.pack("<I", 65_534 - int(rng.integers(9)))[:3]
    return riff((b"VP8X", b"\x02\0\0\0" + size * 2), (b"VP8 ", webp()[20:]))


@content
def webp_of_a_large_canvas(rng):
    """An animation of one pixel in a canvas of 268 million, twice of four bytes."""
    size = struct.pack("<I", 16_383)[:3]
    frame = webp(16, 16)[12:]
    frame = bytes(6) + struct.pack("<I", 15)[:3] * 2 + bytes(4) + frame
    header = b"\x02\0\0\0" + size * 2
    return riff((b"VP8X", header), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * 3)


@content
def webp_without_end(rng):
    data = webp(300, 200)
    return data[: int(rng.integers(30, len(data) - 10))]


@content
def webp_of_noise(rng):
    return riff((b"VP8L", b"\x2f" + rng.bytes(5000)))


# BMP.


def bmp(width, height, data, *, bits=8, compression=1):
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 2, 0
    )
    start = 14 + len(header) + 8
    return struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start) + (
        header + bytes(8) + data
    )


@content
def bmp_of_jumps(rng):
    """Each jump skips 255 lines of 20 million pixels."""
    return bmp(20_000_000 + int(rng.integers(99)), 2, b"\0\2\xff\xff" * 9)[:-7]


@content
def bmp_of_line_ends(rng):
    return bmp(7000, 7000, b"\0\0" * (20_000_000 + int(rng.integers(99))))


@content
def bmp_of_empty_lines(rng):
    return bmp(7000, 7000, b"\1\1\0\0" * 6990)


@content
def bmp_of_4_exapixels(rng):
    return bmp(2**31 - 1, 2**31 - 1 - int(rng.integers(9)), b"x", compression=0)


@content
def bmp_without_end(rng):
    data = bmp(3000, 3000, bytes(int(rng.integers(1000))), bits=24, compression=0)
    return data


# TIFF.


def tiff(tags, data=b"", *, next_ifd=0):
    """Returns a TIFF whose values lie in `data`, which begins at byte 8."""
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in sorted(tags))
    start = 8 + len(data)
    return (
        b"II*\0" + struct.pack("<L", start) + data
        + struct.pack("<H", len(tags)) + entries + struct.pack("<L", next_ifd)
    )  # fmt: skip


def grey_tags(width, height, *, compression=1, offset=8, size=0, rows=None):
    return [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8),
        (259, 3, 1, compression), (262, 3, 1, 1), (273, 4, 1, offset),
        (277, 3, 1, 1), (278, 4, 1, height if rows is None else rows),
        (279, 4, 1, size),
    ]  # fmt: skip


@content
def tif_of_tags(rng):
    """Fifty thousand tags with the same value of a megabyte, and no pixels."""
    data = bytes(10**6)
    tags = [(tag, 7, len(data), 8) for tag in range(10_000, 60_000)]
    return tiff([*grey_tags(64, 48, offset=2**31, size=3072), *tags], data)


@content
def tif_of_4_gigapixels(rng):
    return tiff(grey_tags(65_535, 65_535 - int(rng.integers(9)), size=100))


@content
def tif_of_zeros(rng):
    """A strip that unpacks to a thousand times its size, which is too short."""
    data = zlib.compress(bytes(10**6))
    return tiff(grey_tags(7000, 7000, compression=8, size=len(data)), data)


@content
def tif_of_a_large_tile(rng):
    data = zlib.compress(bytes(10**6))
    tags = [tag for tag in grey_tags(64, 48, compression=8) if tag[0] not in (273, 279)]
    tile = [(322, 4, 1, 46_336), (323, 4, 1, 46_336), (324, 4, 1, 8)]
    return tiff([*tags, *tile, (325, 4, 1, len(data))], data)


@content
def tif_of_itself(rng):
    data = tiff(grey_tags(64, 48, offset=2**30, size=3072))
    return data[:-4] + struct.pack("<L", 8)


@content
def tif_of_many_strips(rng):
    num = 2_000_000
    data = struct.pack("<L", 8) * num
    tags = [tag for tag in grey_tags(64, num, rows=1) if tag[0] not in (273, 279)]
    return tiff([*tags, (273, 4, num, 8), (279, 4, num, 8)], data)


@content
def tif_of_scans(rng):
    """A TIFF whose strip is a JPEG with 400 scans."""
    grey = Image.new("L", (5000, 4000), 99)
    file = io.BytesIO()
    grey.save(file, "JPEG", progressive=True)
    data = repeat_last_scan(file.getvalue(), 400)
    return tiff(grey_tags(5000, 4000, compression=7, size=len(data)), data)


@content
def tif_with_a_long_directory(rng):
    header = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16)
    return header + struct.pack("<Q", 2**62) + rng.bytes(200_000)


@content
def tif_without_end(rng):
    return tiff(grey_tags(640, 480, size=640 * 480))[: int(rng.integers(20, 100))]


@content
def tif_of_noise(rng):
    return b"II*\0\x08\0\0\0" + rng.bytes(5000)
