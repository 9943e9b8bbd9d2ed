"""Regions of large images are slices of the whole, and little else is decoded."""

import io
import struct
import threading

import cv2
import numpy as np
from PIL import Image
import pytest
import tifffile

from deeprank_jax import errors
from deeprank_jax.data import decode, large_images
from deeprank_jax.data.large_images import LargeImages, PixelCache

HEIGHT, WIDTH = 150, 211
KINDS = ("png", "jpeg", "grey", "strips", "tiles", "bigtiff", "planar", "rgba", "16")


def create_pixels(height=HEIGHT, width=WIDTH, channels=3):
    """Smooth, so that JPEG keeps most of it, and different everywhere."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, channels)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_image(folder, kind):
    pixels = create_pixels()
    path = folder / f"{kind}.{'png' if kind in ('png', '16') else 'tif'}"
    rgb = dict(photometric="rgb")
    if kind == "png":
        Image.fromarray(pixels).save(path)
    elif kind == "jpeg":
        path = path.with_suffix(".jpg")
        Image.fromarray(pixels).save(path, quality=90)
    elif kind == "16":
        cv2.imwrite(str(path), pixels[..., 0].astype(np.uint16) * 257)
    elif kind == "grey":
        tifffile.imwrite(path, pixels[..., 0], tile=(32, 48), compression="zlib")
    elif kind == "strips":
        tifffile.imwrite(path, pixels, rowsperstrip=16, compression="zlib", **rgb)
    elif kind == "tiles":
        tifffile.imwrite(path, pixels, tile=(32, 48), compression="zlib", **rgb)
    elif kind == "bigtiff":
        tifffile.imwrite(path, pixels, tile=(64, 64), bigtiff=True, **rgb)
    elif kind == "planar":
        planes = pixels.transpose(2, 0, 1)
        tifffile.imwrite(path, planes, planarconfig="separate", **rgb)
    else:
        rgba = np.dstack([pixels, create_pixels(channels=1)])
        tifffile.imwrite(path, rgba, tile=(32, 48), extrasamples=["unassalpha"], **rgb)
    return path


def write_pyramid(path, levels, **options):
    options = dict(photometric="rgb", tile=(32, 32), compression="zlib") | options
    with tifffile.TiffWriter(path) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, **options)
        for pixels in levels[1:]:
            writer.write(pixels, subfiletype=1, **options)
    return path


@pytest.fixture
def counted(monkeypatch):
    """Counts the segments and whole images that are decoded."""
    counts = {"segments": 0, "images": 0}
    segment, whole = LargeImages._decode_segment, LargeImages._decode_whole

    def decode_segment(self, *arguments):
        counts["segments"] += 1
        return segment(self, *arguments)

    def decode_whole(self, number):
        counts["images"] += 1
        return whole(self, number)

    monkeypatch.setattr(LargeImages, "_decode_segment", decode_segment)
    monkeypatch.setattr(LargeImages, "_decode_whole", decode_whole)
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_regions_are_slices_of_the_decoded_image(tmp_path, kind):
    path = write_image(tmp_path, kind)
    whole = decode.decode_image(path.read_bytes())
    images = LargeImages([str(path)])
    assert images.size(0) == whole.shape[:2] == (HEIGHT, WIDTH)
    rng = np.random.default_rng(1)
    for _ in range(30):
        height, width = rng.integers(1, 70, 2)
        top, left = rng.integers(0, (HEIGHT - height + 1, WIDTH - width + 1))
        region = images.read(0, top, left, height, width)
        np.testing.assert_array_equal(
            region, whole[top : top + height, left : left + width]
        )
    np.testing.assert_array_equal(images.read(0, 0, 0, HEIGHT, WIDTH), whole)


@pytest.mark.parametrize(
    ("kind", "num_segments"), [("tiles", 1), ("bigtiff", 1), ("strips", 2)]
)
def test_only_the_segments_under_a_tile_are_decoded(
    tmp_path, counted, kind, num_segments
):
    images = LargeImages([str(write_image(tmp_path, kind))])
    images.size(0)
    assert counted == {"segments": 0, "images": 0}
    images.read(0, 33, 100, 24, 24)
    assert counted == {"segments": num_segments, "images": 0}
    images.read(0, 33, 100, 24, 24)
    assert counted["segments"] == num_segments
    images.read(0, 0, 0, HEIGHT, WIDTH)
    all_segments = {"tiles": 5 * 5, "bigtiff": 3 * 4, "strips": 10}
    assert counted == {"segments": all_segments[kind], "images": 0}


def test_an_image_in_the_cache_is_decoded_once(tmp_path, counted):
    paths = [str(write_image(tmp_path, kind)) for kind in ("png", "jpeg")]
    bytes_of_one = HEIGHT * WIDTH * 3
    images = LargeImages(paths, cache_mib=1.5 * bytes_of_one / 2**20)
    for number in (0, 0, 0, 1, 1):
        images.read(number, 3, 4, 5, 6)
    assert counted["images"] == 2
    images.read(0, 3, 4, 5, 6)  # The cache has room for one.
    assert counted["images"] == 3
    none = LargeImages(paths, cache_mib=0)
    for _ in range(2):
        none.read(0, 3, 4, 5, 6)
    assert counted["images"] == 5


def test_the_cache_stays_within_its_bytes_and_drops_what_was_used_least():
    cache = PixelCache(100)
    created = []

    def get(key, size=30):
        def create():
            created.append(key)
            return np.full(size, key, np.uint8)

        array = cache.get(key, create)
        assert len(array) == size
        assert np.all(array == key)
        assert cache.num_bytes <= 100

    for key in (1, 2, 3, 1, 4, 1, 2):
        get(key)
    assert created == [1, 2, 3, 4, 2]
    get(9, 101)  # Larger than the cache: not stored, and nothing is dropped for it.
    get(9, 101)
    get(1)
    assert created == [1, 2, 3, 4, 2, 9, 9]
    assert cache.num_bytes == 90


def test_threads_read_the_same_pixels(tmp_path):
    path = write_image(tmp_path, "tiles")
    whole = decode.decode_image(path.read_bytes())
    images = LargeImages([str(path)], cache_mib=0.01)
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            top, left = rng.integers(0, (HEIGHT - 40, WIDTH - 40))
            region = images.read(0, top, left, 40, 40)
            if not np.array_equal(region, whole[top : top + 40, left : left + 40]):
                wrong.append((top, left))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_region_changes_no_pixel_of_the_cache(tmp_path):
    images = LargeImages([str(write_image(tmp_path, "png"))])
    region = images.read(0, 0, 0, 8, 8)
    before = region.copy()
    region[:] = 0
    np.testing.assert_array_equal(images.read(0, 0, 0, 8, 8), before)


def test_the_levels_of_a_pyramid(tmp_path, counted):
    levels = [create_pixels(160 // 2**i, 224 // 2**i) for i in range(3)]
    path = write_pyramid(tmp_path / "slide.tif", levels)
    for level, pixels in enumerate(levels):
        images = LargeImages([str(path)], level=level)
        assert images.size(0) == pixels.shape[:2]
        np.testing.assert_array_equal(images.read(0, 7, 9, 20, 30), pixels[7:27, 9:39])
    assert counted["images"] == 0
    message = r"slide.tif: has no level 3 .*it has 3 levels, of which 0 is the full"
    with pytest.raises(errors.DataError, match=message):
        LargeImages([str(path)], level=3).size(0)


@pytest.mark.parametrize("kind", ["png", "tiles", "planar"])
def test_an_image_without_pyramid_has_no_further_level(tmp_path, kind):
    path = write_image(tmp_path, kind)
    message = rf"{kind}\.\w+: has no level 1 .*it has 1 level, of which"
    with pytest.raises(errors.DataError, match=message):
        LargeImages([str(path)], level=1).size(0)


def test_without_tifffile_a_tiff_is_decoded_whole(tmp_path, counted, monkeypatch):
    path = write_image(tmp_path, "tiles")
    whole = decode.decode_image(path.read_bytes())
    monkeypatch.setattr(large_images, "_HAS_TIFFFILE", False)
    images = LargeImages([str(path)])
    assert images.size(0) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(images.read(0, 9, 8, 30, 20), whole[9:39, 8:28])
    assert counted == {"segments": 0, "images": 1}


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_turned_images_are_read_upright(tmp_path, orientation, suffix):
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(create_pixels()).save(path, exif=exif)
    whole = decode.decode_image(path.read_bytes())
    images = LargeImages([str(path)])
    assert images.size(0) == whole.shape[:2]
    assert (whole.shape[:2] == (WIDTH, HEIGHT)) == (orientation == 6)
    np.testing.assert_array_equal(images.read(0, 5, 6, 30, 40), whole[5:35, 6:46])


def encode_jpeg(pixels, **options):
    """Returns a JPEG in two parts, its tables and the rest, as TIFFs have them."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92, **options)
    data, position = buffer.getvalue(), 2
    tables, rest = b"\xff\xd8", b"\xff\xd8"
    while data[position + 1] != 0xDA:
        length = 2 + int.from_bytes(data[position + 2 : position + 4])
        segment = data[position : position + length]
        if segment[1] in (0xDB, 0xC4):
            tables += segment
        elif segment[1] not in (0xE0, 0xEE):  # Without JFIF and Adobe, as scanners do.
            rest += segment
        position += length
    return tables + b"\xff\xd9", rest + data[position:]


def write_jpeg_tiff(path, tiles, shape, side, photometric):
    """Writes a TIFF of encoded tiles, which tifffile does with imagecodecs only."""
    num_samples = 1 if photometric == 1 else 3
    blobs = [tiles[0][0], *(data for _, data in tiles)]
    ends = np.cumsum([8, *map(len, blobs)])
    offsets, counts = ends[1:-1].tolist(), [len(blob) for blob in blobs[1:]]
    directory = int(ends[-1]) + 8 * len(tiles)
    arrays = struct.pack(f"<{2 * len(tiles)}I", *offsets, *counts)
    entries = [
        (256, 4, 1, shape[1]), (257, 4, 1, shape[0]), (258, 3, 1, 8), (259, 3, 1, 7),
        (262, 3, 1, photometric), (277, 3, 1, num_samples), (284, 3, 1, 1),
        (322, 4, 1, side), (323, 4, 1, side), (324, 4, len(tiles), int(ends[-1])),
        (325, 4, len(tiles), int(ends[-1]) + 4 * len(tiles)),
        (347, 7, len(blobs[0]), 8), (530, 3, 2, 1 | 1 << 16),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    header = struct.pack("<2sHI", b"II", 42, directory)
    count = struct.pack("<H", len(entries))
    path.write_bytes(header + b"".join(blobs) + arrays + count + table + bytes(4))


@pytest.mark.parametrize("colors", ["rgb", "ycbcr", "grey"])
def test_tiles_that_are_jpegs_with_common_tables(tmp_path, counted, colors):
    pixels = create_pixels(128, 192)
    if colors == "grey":
        pixels = pixels[..., 0]
    options = {"rgb": dict(keep_rgb=True), "ycbcr": dict(subsampling=0)}
    tiles = [
        encode_jpeg(pixels[y : y + 64, x : x + 64], **options.get(colors, {}))
        for y in (0, 64)
        for x in (0, 64, 128)
    ]
    assert len({tables for tables, _ in tiles}) == 1
    path = tmp_path / "slide.tif"
    photometric = {"grey": 1, "rgb": 2, "ycbcr": 6}[colors]
    write_jpeg_tiff(path, tiles, pixels.shape, 64, photometric)
    images = LargeImages([str(path)])
    region = images.read(0, 50, 70, 40, 50)
    assert counted == {"segments": 2, "images": 0}
    expected = pixels[50:90, 70:120].astype(float)
    if colors == "grey":
        expected = expected[..., None]
    assert np.abs(region - expected).mean() < 3
    assert np.abs(images.read(0, 0, 0, 128, 192).mean() - pixels.mean()) < 1


def test_strips_that_are_jpegs(tmp_path, counted):
    path = tmp_path / "slide.tif"
    Image.fromarray(create_pixels()).save(path, compression="jpeg")
    whole = decode.decode_image(path.read_bytes())
    region = LargeImages([str(path)]).read(0, 40, 70, 60, 50)
    assert counted["images"] == 0
    assert counted["segments"] > 0
    # Decoders differ in how they enlarge the colours at the edges of strips.
    difference = np.abs(region - whole[40:100, 70:120].astype(float))
    assert difference.mean() < 2


def test_an_empty_tile_of_a_tiff_is_black(tmp_path):
    path = tmp_path / "sparse.tif"
    pixels = create_pixels(64, 64)
    tiles = iter([pixels[:32, :32], None, pixels[32:, :32], pixels[32:, 32:]])
    tifffile.imwrite(
        path, tiles, shape=(64, 64, 3), dtype=np.uint8, tile=(32, 32),
        photometric="rgb", compression="zlib",
    )  # fmt: skip
    region = LargeImages([str(path)]).read(0, 0, 0, 64, 64)
    expected = pixels.copy()
    expected[:32, 32:] = 0
    np.testing.assert_array_equal(region, expected)


def test_damaged_files_are_bad_images(tmp_path):
    paths = {name: tmp_path / name for name in ("no.png", "cut.tif", "head.tif")}
    paths["no.png"].write_bytes(b"no image")
    data = write_image(tmp_path, "tiles").read_bytes()
    paths["cut.tif"].write_bytes(data[:400] + bytes(len(data) - 400))
    paths["head.tif"].write_bytes(data[:4])
    images = LargeImages([str(path) for path in paths.values()])
    with pytest.raises(decode.BadImageError, match="not an image"):
        images.size(0)
    with pytest.raises(decode.BadImageError):
        images.size(2)
    with pytest.raises(decode.BadImageError):
        images.read(1, 0, 0, HEIGHT, WIDTH)
    with pytest.raises(FileNotFoundError):
        LargeImages([str(tmp_path / "none.png")]).size(0)


def test_an_image_that_has_become_smaller_is_a_bad_image(tmp_path):
    path = write_image(tmp_path, "png")
    images = LargeImages([str(path)])
    assert images.size(0) == (HEIGHT, WIDTH)
    Image.fromarray(create_pixels(20, 20)).save(path)
    with pytest.raises(decode.BadImageError, match="has changed: it has 20 x 20"):
        images.read(0, 10, 10, 20, 20)


@pytest.mark.parametrize(("max_side", "factor"), [(40, 6), (211, 1), (1000, 1)])
def test_an_overview_has_the_means_of_cells(tmp_path, monkeypatch, max_side, factor):
    monkeypatch.setattr(large_images, "_BLOCK_SIDE", 60)
    images = LargeImages([str(write_image(tmp_path, "tiles"))])
    overview = images.overview(0, max_side)
    assert overview.shape == (-(-HEIGHT // factor), -(-WIDTH // factor), 3)
    # Whole cells; those of the last block are a little narrower.
    width = WIDTH // 60 * 60
    cells = create_pixels()[:, :width].reshape(
        HEIGHT // factor, factor, width // factor, factor, 3
    )
    means = cells.mean(axis=(1, 3))
    assert np.abs(overview[:, : width // factor] - means).max() <= 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(level=-1), "level must be at least 0, got -1"),
        (dict(cache_mib=-0.5), "cache_mib must be at least 0, got -0.5"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LargeImages([], **options)
