import io
import pathlib
import struct
import subprocess
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
from PIL import EpsImagePlugin, Image, ImageOps
import pytest

from deeprank_jax.data import decode

ROOT = pathlib.Path(__file__).parents[2]


def noise(*shape, seed=0, dtype=np.uint8):
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, shape, dtype, endpoint=True)


def smooth(height=40, width=64):
    """A picture that JPEG keeps nearly as it is, different in every corner."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 3, y * 5, 255 - x * 2 - y]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def on_white(image):
    """The definition, in floating point."""
    alpha = image[..., 3:] / 255.0
    return np.floor(image[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def grey_to_rgb(image):
    return np.stack([image] * 3, axis=-1)


def chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png_16_bit(image):
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "BMP"])
def test_rgb_is_kept(file_format):
    image = noise(9, 7, 3)
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(image, file_format, **options)
    np.testing.assert_array_equal(decode.decode_image(data), image)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_grey_becomes_rgb(file_format):
    image = noise(9, 7)
    decoded = decode.decode_image(encode(image, file_format))
    np.testing.assert_array_equal(decoded, grey_to_rgb(image))


def test_one_bit_becomes_rgb():
    image = noise(9, 7) > 128
    decoded = decode.decode_image(encode(Image.fromarray(image), "PNG"))
    np.testing.assert_array_equal(decoded, grey_to_rgb(image * np.uint8(255)))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_white(file_format):
    alpha, color = np.mgrid[:256, :256].astype(np.uint8)
    image = np.stack([color, color, 255 - color, alpha], axis=-1)
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    decoded = decode.decode_image(encode(image, file_format, **options))
    np.testing.assert_array_equal(decoded, on_white(image))


def test_grey_with_alpha_is_composited_on_white():
    image = noise(9, 7, 2)
    data = encode(Image.fromarray(image, "LA"), "PNG")
    expected = on_white(np.dstack([grey_to_rgb(image[..., 0]), image[..., 1]]))
    np.testing.assert_array_equal(decode.decode_image(data), expected)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_palette_with_transparency_is_composited_on_white(file_format):
    image = Image.fromarray(noise(9, 7) % 4, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    data = encode(image, file_format, transparency=2)
    colors = np.array([[255, 0, 0], [0, 255, 0], [255] * 3, [9] * 3], np.uint8)
    expected = colors[np.asarray(image)]
    np.testing.assert_array_equal(decode.decode_image(data), expected)


@pytest.mark.parametrize("transparent", [7, (7, 7, 7)])
def test_a_transparent_color_becomes_white(transparent):
    image = noise(9, 7) if isinstance(transparent, int) else noise(9, 7, 3)
    image[2, 3] = 7
    decoded = decode.decode_image(encode(image, "PNG", transparency=transparent))
    assert decoded[2, 3].tolist() == [255, 255, 255]
    assert decoded[0, 0].tolist() == np.broadcast_to(image[0, 0], 3).tolist()


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (9, 7, 4)])
def test_16_bits_are_rounded_to_8(shape):
    image = noise(*shape, dtype=np.uint16)
    image[0, 0], image[0, 1] = 65_535, 0
    decoded = decode.decode_image(png_16_bit(image))
    rounded = np.floor(image / 257 + 0.5).astype(np.uint8)
    if len(shape) == 2:
        expected = grey_to_rgb(rounded)
    elif shape[2] == 3:
        expected = rounded[..., ::-1]
    else:
        expected = on_white(rounded[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(decoded, expected)


def test_a_16_bit_tiff_is_rounded_to_8():
    image = noise(9, 7, dtype=np.uint16)
    decoded = decode.decode_image(encode(image, "TIFF"))
    expected = grey_to_rgb(np.floor(image / 257 + 0.5).astype(np.uint8))
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_modes(mode, progressive):
    image = Image.fromarray(smooth()).convert(mode)
    data = encode(image, "JPEG", quality=98, progressive=progressive)
    difference = decode.decode_image(data).astype(int) - np.asarray(
        image.convert("RGB")
    )
    assert np.abs(difference).max() < 12


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(file_format):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(
        frames[0], file_format, save_all=True, append_images=frames[1:], **options
    )
    expected = np.full((6, 8, 3), [255, 0, 0], np.uint8)
    np.testing.assert_array_equal(decode.decode_image(data), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "JPEG": {"quality": 98, "subsampling": 0},
        "WEBP": {"lossless": True},
    }.get(file_format, {})
    data = encode(smooth(), file_format, exif=exif, **options)
    upright = Image.fromarray(smooth())
    upright.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(upright)).astype(int)
    decoded = decode.decode_image(data)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() < 12


def test_an_empty_file():
    with pytest.raises(decode.BadImageError, match=r"empty file \(0 bytes\)"):
        decode.decode_image(b"")


def test_a_web_page_is_named_by_its_first_bytes():
    with pytest.raises(decode.BadImageError) as error:
        decode.decode_image(b"<html><body>404</body></html>")
    assert str(error.value) == "not an image (first bytes '<htm')"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file(file_format, share, capfd):
    data = encode(noise(60, 60, 3), file_format)
    with pytest.raises(decode.BadImageError):
        decode.decode_image(data[: int(len(data) * share)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("progressive", [False, True])
def test_the_end_of_a_thumbnail_is_not_the_end_of_a_jpeg(progressive):
    thumbnail = encode(smooth(), "JPEG")
    exif = b"Exif\0\0" + thumbnail
    data = encode(noise(60, 60, 3), "JPEG", progressive=progressive)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    data = data[:2] + segment + data[2:]
    assert decode.decode_image(data).shape == (60, 60, 3)
    # Zeros, as a broken download leaves them, are valid data to the decoders.
    filled = data[: len(data) // 2] + bytes(len(data) // 2)
    with pytest.raises(decode.BadImageError, match="truncated"):
        decode.decode_image(filled)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm():
    data = encode(smooth(), "JPEG") + b"\xff\xda trailing"
    assert decode.decode_image(data).shape == (40, 64, 3)


def test_the_first_image_of_a_phone_is_its_photograph():
    frames = [Image.fromarray(smooth()), Image.new("RGB", (9, 9), "red")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=98)
    assert np.abs(decode.decode_image(data).astype(int) - smooth()).max() < 12


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
@pytest.mark.parametrize("has_still", [True, False])
def test_an_animation_is_its_first_frame(mode, has_still):
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 256, (3, 20, 30, 3), np.uint8)
    first, *others = (Image.fromarray(x).convert(mode) for x in drawn)
    file = io.BytesIO()
    first.save(
        file, "PNG", save_all=True, append_images=others, default_image=has_still
    )
    assert b"acTL" in file.getvalue()
    still = np.array(first.convert("RGB"))
    np.testing.assert_array_equal(decode.decode_image(file.getvalue()), still)


def test_a_damaged_png():
    data = bytearray(encode(noise(60, 60, 3), "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(decode.BadImageError, match="damaged"):
        decode.decode_image(bytes(data))


@pytest.mark.parametrize("side", [8_000, 10_000, 30_000])
def test_a_huge_png_is_refused_by_its_header(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)
    data += chunk(b"IEND", b"")
    tracemalloc.start()
    try:
        with pytest.raises(decode.BadImageError, match="too large"):
            decode.decode_image(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_max_pixels_is_inclusive():
    data = encode(noise(10, 20, 3), "PNG")
    assert decode.decode_image(data, max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(decode.BadImageError, match="20 x 10 pixels"):
        decode.decode_image(data, max_pixels=199)
    with pytest.raises(decode.BadImageError, match="20 x 10 pixels"):
        decode.decode_image(noise(10, 20, 3), max_pixels=199)


def test_an_eps_starts_no_program(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("Pillow took it for an EPS")

    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", refuse)
    data = encode(noise(9, 9, 3), "EPS")
    with pytest.raises(decode.BadImageError, match=r"first bytes '%!PS'"):
        decode.decode_image(data)


def test_formats_that_are_not_documented_are_refused():
    for file_format in ("PPM", "TGA", "PCX", "ICO", "JPEG2000"):
        data = encode(noise(16, 16, 3), file_format)
        with pytest.raises(decode.BadImageError, match="not an image"):
            decode.decode_image(data)


@pytest.fixture
def low_limit(monkeypatch):
    """Pillow's own limit, low enough for small files."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    return 1_000


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("pixels", [1_600, 3_600])
def test_max_pixels_is_the_only_limit(file_format, pixels, low_limit):
    side = int(pixels**0.5)
    data = encode(noise(side, side, 3), file_format)
    # Beyond Pillow's limit, to which it warns, and beyond twice that, where it stops.
    with pytest.raises(decode.BadImageError, match=r"config\.data\.max_pixels=999$"):
        decode.decode_image(data, max_pixels=999)
    assert decode.decode_image(data, max_pixels=pixels).shape == (side, side, 3)


@pytest.mark.slow
def test_nothing_is_printed_about_large_images(capfd):
    code = (
        "import io, sys; from PIL import Image; from deeprank_jax.data import decode\n"
        "file = io.BytesIO(); Image.new('L', (10_000, 10_000)).save(file, 'PNG')\n"
        "try: decode.decode_image(file.getvalue())\n"
        "except decode.BadImageError as error: print(error)\n"
        "print(decode.decode_image(file.getvalue(), max_pixels=100_000_000).shape)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    output, printed = capfd.readouterr()
    assert printed == ""
    assert output == (
        "too large (10,000 x 10,000 pixels); shrink it, or in training raise "
        "config.data.max_pixels=50,000,000\n(10000, 10000, 3)\n"
    )


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"iCCP", b"icc\0\0" + zlib.compress(b"xx" * 80)),
        (b"sRGB", b"\x09"),
        (b"ABCD", b"unknown"),
    ],
)
def test_nothing_is_printed_about_what_a_png_says_beside_its_pixels(
    kind, content, capfd
):
    image = noise(9, 7, 3)
    data = encode(image, "PNG")
    data = data[:33] + chunk(kind, content) + data[33:]
    np.testing.assert_array_equal(decode.decode_image(data), image)
    assert capfd.readouterr() == ("", "")


def test_a_png_wider_than_libpng_takes(capfd):
    image = np.zeros((1, 1_000_001), np.uint8)
    assert decode.decode_image(encode(image, "PNG")).shape == (1, 1_000_001, 3)
    assert capfd.readouterr() == ("", "")


def test_arrays():
    image = noise(5, 6, 4)
    rgb, grey = image[..., :3], image[..., 0]
    for given, expected in (
        (grey, grey_to_rgb(grey)),
        (grey[..., None], grey_to_rgb(grey)),
        (rgb, rgb),
        (image, on_white(image)),
        (rgb.astype(np.uint16) * 257, rgb),
    ):
        np.testing.assert_array_equal(decode.decode_image(given), expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((4, 4, 3), np.float32), "type float32"),
    ],
)
def test_arrays_of_another_layout(array, message):
    with pytest.raises(decode.BadImageError, match=message):
        decode.decode_image(array)


def test_shrinking_averages():
    image = noise(24, 24, 3)
    blocks = image.reshape(6, 4, 6, 4, 3).mean(axis=(1, 3))
    for fit in ("crop", "pad", "stretch"):
        resized = decode.resize_image(image, 6, fit)
        assert np.abs(resized - blocks).max() <= 0.5


def test_stretching_averages_along_the_axis_that_shrinks():
    image = noise(24, 4, 3)
    column = image.reshape(6, 4, 4, 3).mean(axis=1).round().astype(np.uint8)
    resized = decode.resize_image(image, 6, "stretch")
    expected = cv2.resize(column, (6, 6), interpolation=cv2.INTER_CUBIC)
    assert np.abs(resized.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("swap", [False, True])
def test_crop_takes_the_middle(swap):
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = noise(10, 10, 3)
    middle = image[:, 10:20]
    if swap:
        image, middle = image.swapaxes(0, 1), middle.swapaxes(0, 1)
    np.testing.assert_array_equal(decode.resize_image(image, 10, "crop"), middle)


@pytest.mark.parametrize("swap", [False, True])
def test_pad_adds_white(swap):
    image = noise(10, 30, 3)
    expected = np.full((30, 30, 3), 255, np.uint8)
    expected[10:20] = image
    if swap:
        image, expected = image.swapaxes(0, 1), expected.swapaxes(0, 1)
    np.testing.assert_array_equal(decode.resize_image(image, 30, "pad"), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 7), (48, 48)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_any_shape_becomes_a_square_in_its_own_memory(shape, fit):
    image = noise(*shape, 3)
    resized = decode.resize_image(image, 48, fit)
    assert resized.shape == (48, 48, 3)
    assert resized.dtype == np.uint8
    assert not np.shares_memory(image, resized)


def test_a_misspelt_fit():
    with pytest.raises(ValueError, match=r"fit must be .*, got 'cropped'"):
        decode.resize_image(noise(4, 4, 3), 2, "cropped")
