"""Hostile files are named in time and within memory; the others are used as ever."""

import io
import json
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from deeprank_jax.data import decode, image_limits
from deeprank_jax.data.reader import BadImages, ImageReader
from deeprank_jax.inference import sources
from tools.faults import hostile_images

# Reads each file, and prints its seconds, the growth of memory in MiB, and the reason.
SCRIPT = """
import json, pathlib, resource, sys, time
from deeprank_jax import files
from deeprank_jax.data import decode
usage = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, results = usage(), {}
for path in json.loads(sys.stdin.read()):
    start, reason = time.process_time(), None
    try:
        decode.decode_image(files.read_bytes(path, decode.MAX_BYTES))
    except decode.BadImageError as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror
    results[path] = (time.process_time() - start, reason)
print(json.dumps([usage() - before, results]))
"""


@pytest.mark.slow
def test_hostile_files_are_named_in_time_and_memory(tmp_path):
    paths = hostile_images.hostile_files(tmp_path)
    assert len(paths) >= 40
    child = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([str(path) for path in paths.values()]),
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    growth, results = json.loads(child.stdout.splitlines()[-1])
    assert growth < 1024
    unnamed = [name for name, path in paths.items() if not results[str(path)][1]]
    assert unnamed == []
    slow = {name: results[str(p)][0] for name, p in paths.items()}
    assert {name: x for name, x in slow.items() if x > 2} == {}


# The kinds that took the longest or the most memory before there were limits.
CHEAP = (
    "pipe", "link_to_pipe", "unix_socket", "link_to_zero", "link_to_itself",
    "link_to_nothing", "link_through_a_file", "sparse_ten_gigabytes", "no_bytes",
    "jpeg_without_end", "png_damaged", "gif_of_4_gigapixels", "bmp_of_jumps", "page",
    "tif_of_a_large_tile",
)  # fmt: skip


def test_good_files_among_hostile_ones_are_read_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    good = tmp_path / "good"
    good.mkdir()
    for i, suffix in enumerate(("jpg", "png", "gif", "webp", "bmp", "tif")):
        pixels = rng.integers(0, 255, (40, 30, 3), np.uint8)
        Image.fromarray(pixels).save(good / f"{i}.{suffix}")

    def read(folder):
        records, reasons = sources.open_source(folder), {}

        class Listed(BadImages):
            def add(self, split, record, reason):
                reasons[record] = reason

        bad = Listed(None, len(records), 1.0)
        with ImageReader(records, image_size=16, workers=2, bad_images=bad) as reader:
            images, ok = reader.load(np.arange(len(records)))
        return images[ok], reasons

    alone, reasons = read(good)
    assert len(alone) == 6
    assert reasons == {}
    for name in CHEAP:
        made = good / f"{name}.jpg"
        hostile_images.KINDS[name](made, np.random.default_rng(0))
    together, reasons = read(good)
    np.testing.assert_array_equal(together, alone)
    assert len(reasons) == len(CHEAP)
    assert all(reasons.values())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_usual_files_have_no_more_than_the_limits(options):
    data = hostile_images.jpeg_png.jpeg(640, 480, **options)
    assert image_limits.check_header(data) is None
    many = hostile_images.jpeg_png.repeat_last_scan(data, 20)
    assert image_limits.check_header(many) is None


def test_parts_of_an_image_that_look_like_scans_do_not_count():
    thumbnail = b"\xff\xda" * 2000
    data = hostile_images.jpeg_png.jpeg(progressive=True)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    data = data[:2] + segment + data[2:] + b"\xff\xda" * 2000
    assert image_limits.check_header(data) is None
    assert decode.decode_image(data).shape == (48, 64, 3)


def test_a_large_transparent_image_is_blended_in_bands(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (70, 30, 4), np.uint8)
    whole = decode.decode_image(image)
    alpha = image[..., 3:].astype(float)
    expected = 255 - alpha / 255 * (255 - image[..., :3].astype(float))
    assert np.abs(whole - expected).max() <= 0.5
    for pixels in (1, 31, 64, 69 * 30):
        monkeypatch.setattr(decode, "_BLENDED_PIXELS", pixels)
        np.testing.assert_array_equal(decode.decode_image(image), whole)


JPEGS = {
    "RGB": {}, "progressive": {"progressive": True}, "L": {}, "CMYK": {},
    "restarts": {"restart_marker_blocks": 3}, "L progressive": {"progressive": True},
    "CMYK progressive": {"progressive": True},
    "scattered restarts": {"progressive": True, "restart_marker_rows": 1},
}  # fmt: skip


def create_jpeg(kind):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    mode = kind.split()[0] if kind.split()[0] in ("L", "CMYK") else "RGB"
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **JPEGS[kind])
    return file.getvalue()


def damage(data, rng):
    """Returns data with other bytes, mostly behind markers, or without a part."""
    damaged = bytearray(data)
    markers = [i for i in range(2, len(data) - 4) if data[i] == 255 and data[i + 1]]
    for _ in range(rng.integers(1, 4)):
        place = int(rng.choice(markers)) + int(rng.integers(1, 16))
        place = place if rng.random() < 0.8 else int(rng.integers(3, len(data)))
        place = min(place, len(damaged) - 1)
        value = int(rng.choice([0, 1, 2, 255, rng.integers(256)]))
        if rng.random() < 0.9:
            damaged[place] = value
        else:
            del damaged[place : place + value]
    return bytes(damaged)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_damaged_jpeg_is_named_or_read(kind):
    rng, data = np.random.default_rng(1), create_jpeg(kind)
    assert decode.decode_image(data).shape == (40, 30, 3)
    num_named = 0
    for _ in range(60):
        try:
            decode.decode_image(damage(data, rng), max_pixels=100_000)
        except decode.BadImageError:
            num_named += 1
    assert num_named > 20


@pytest.mark.parametrize("length", [b"\0\0", b"\0\2", b"\0\7", b"\0\11", b"\xff\xff"])
def test_a_scan_of_a_wrong_length_is_a_missing_part(length):
    data = bytearray(create_jpeg("progressive"))
    place = data.rindex(b"\xff\xda") + 2
    data[place : place + 2] = length
    reason = "missing part|without its end"
    with pytest.raises(decode.BadImageError, match=reason):
        decode.decode_image(bytes(data))
