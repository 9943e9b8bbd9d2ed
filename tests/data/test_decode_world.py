"""Images as cameras, scanners and downloads leave them."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
from PIL import Image, features
import pytest

from deeprank_jax.data import decode
from deeprank_jax.inference import images

BAD_EXIF = {
    "text": b"garbage!" * 3,
    "short": b"II",
    "cut": b"II*\0\x08\0\0\0\x05\0\x12",
}


def photo(height=200, width=300, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def encode(image, file_format="JPEG", **options):
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def with_exif(file_format, exif):
    if file_format == "WEBP":
        return encode(photo(), "WEBP", lossless=True, exif=exif)
    if file_format == "PNG":
        data = encode(photo(), "PNG")
        kind = b"eXIf" + exif
        chunk = (
            struct.pack(">I", len(exif)) + kind + struct.pack(">I", zlib.crc32(kind))
        )
        return data[:33] + chunk + data[33:]
    # With the resolution, Pillow reads no EXIF data to open the file.
    data, segment = encode(photo(), dpi=(72, 72)), b"Exif\0\0" + exif
    return (
        data[:2]
        + b"\xff\xe1"
        + struct.pack(">H", len(segment) + 2)
        + segment
        + data[2:]
    )


@pytest.mark.parametrize("exif", BAD_EXIF.values(), ids=BAD_EXIF)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_data_turn_no_image(file_format, exif):
    data = with_exif(file_format, exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode.decode_image(data), plain)
        pil = Image.open(io.BytesIO(data))
        np.testing.assert_array_equal(images.decode(pil, "pil"), plain)


def grey(values, dtype):
    return Image.fromarray(np.reshape(values, (8, 8)).astype(dtype))


@pytest.mark.parametrize(
    "image",
    [
        grey(np.arange(64) * 1_000, np.int32),
        grey(np.arange(64) * 4, np.int32),
        grey(np.arange(64) * 1_000, np.uint16),
        grey(np.arange(64) * 60, np.uint16),
    ],
    ids=["I", "I of 8 bits", "I;16", "I;16 of 12 bits"],
)
def test_a_pil_image_is_as_its_file(image):
    decoded = images.decode(image, "pil")
    np.testing.assert_array_equal(decoded, decode.decode_image(encode(image, "TIFF")))
    assert len(np.unique(decoded)) == 64


def test_a_pil_image_of_floats_is_refused_as_its_file_is():
    image = grey(np.linspace(0, 1, 64), np.float32)
    for given in (image, encode(image, "TIFF")):
        with pytest.raises(decode.BadImageError, match="floating-point"):
            images.decode(given, "image")


def test_12_bits_in_16_and_8_in_32_are_not_black():
    deep = np.linspace(0, 4_095, 64)
    expected = np.round(np.floor(deep) * 255 / 4_095)
    for dtype, file_format in (("u2", "PNG"), ("u2", "TIFF"), ("i4", "TIFF")):
        data = encode(grey(deep, dtype), file_format)
        decoded = decode.decode_image(data)[..., 0].ravel()
        assert np.abs(decoded - expected).max() <= 1
    shallow = grey(np.arange(64) * 4, np.int32)
    decoded = decode.decode_image(encode(shallow, "TIFF"))[..., 0].ravel()
    np.testing.assert_array_equal(decoded, np.arange(64) * 4)
    # As before, with a value that needs more bits, or only one value.
    deep[-1] = 4_096
    assert decode.decode_image(encode(grey(deep, np.uint16), "PNG")).max() == 16
    flat = decode.decode_image(encode(grey([4_000] * 64, np.uint16), "PNG"))
    assert flat.max() == round(4_000 / 257)


def test_12_bits_in_a_colour_tiff_are_named():
    deep = np.random.default_rng(0).integers(0, 4_096, (8, 8, 3), np.uint16)
    tiff = cv2.imencode(".tiff", deep, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes()
    with pytest.raises(decode.BadImageError, match="12 of its 16 bits"):
        decode.decode_image(tiff)
    full = cv2.imencode(".tiff", deep * 16, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1]
    assert decode.decode_image(full.tobytes()).max() > 200


@pytest.mark.parametrize("value", [-1, 65_536, 2**31 - 1])
def test_values_out_of_range_are_named(value):
    image = grey([0] * 63 + [value], np.int32)
    for given in (image, encode(image, "TIFF")):
        with pytest.raises(decode.BadImageError, match=f"{value:,}"):
            images.decode(given, "scan")


OPTIONS = {
    "plain": {},
    "full colour": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.8, 0.97])
def test_a_jpeg_with_a_missing_part_is_named(options, mode, share):
    data = encode(Image.fromarray(photo()).convert(mode), **options)
    cut = data[: int(len(data) * share)]
    if cut.endswith(b"\xff"):
        cut = cut[:-1]
    if options.get("progressive") and share > 0.5:
        # Only the last bit of details is missing, which nobody sees.
        whole = decode.decode_image(data).astype(int)
        error = np.abs(decode.decode_image(cut + b"\xff\xd9") - whole)
        assert error.mean() < 4
        return
    with pytest.raises(decode.BadImageError, match="missing part"):
        decode.decode_image(cut + b"\xff\xd9")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (200, 300)])
def test_grey_images_are_whole(options, size):
    for image in (np.full((*size, 3), 128, np.uint8), photo(*size)):
        data = encode(image, quality=90, **options)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode.decode_image(data), expected)


def test_a_missing_interval_between_restarts_is_named():
    data = encode(photo(), restart_marker_blocks=2)
    first = data.index(b"\xff\xd2", 700)
    second = data.index(b"\xff\xd3", first)
    with pytest.raises(decode.BadImageError, match="missing part"):
        decode.decode_image(data[:first] + data[second:])


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg>', "SVG"),
        (b"8BPS\0\1", "Photoshop"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_the_remedy(data, name):
    with pytest.raises(decode.BadImageError, match=f"but {name} .*convert it to JPEG"):
        decode.decode_image(data)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_is_read():
    image = photo()
    decoded = decode.decode_image(encode(image, "AVIF", quality=95))
    assert np.abs(decoded.astype(int) - image).mean() < 8
