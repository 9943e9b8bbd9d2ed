"""Hostile GIF, WebP, BMP and TIFF files."""

import io
import struct
import zlib

from PIL import Image

from tools.faults.hostile_images.jpeg_png import repeat_last_scan
from tools.faults.hostile_images.kinds import content


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
