"""Maps of tiles by a model whose embeddings are known."""

import ml_collections
import numpy as np
from PIL import Image
import pytest
import tifffile

from deeprank_jax import errors
from deeprank_jax.inference import tile_maps
from deeprank_jax.inference.tile_maps import map_tiles

COLORS = np.array([[200, 20, 20], [20, 200, 20], [20, 20, 200]])


class MeanColors:
    """A model whose embedding of an image is its mean colour."""

    def __init__(self):
        self.preprocessing = dict(image_size=20, fit="crop", max_pixels=10**6)

    def embed_batches(self, batches):
        for batch in batches:
            yield batch.mean(axis=(1, 2)).astype(np.float32)


def write_image(folder, suffix=".png"):
    """Writes 4 rows and 6 columns of squares of 20 pixels and a margin."""
    kinds = np.random.default_rng(0).integers(0, 3, (4, 6))
    pixels = COLORS[kinds].repeat(20, axis=0).repeat(20, axis=1).astype(np.uint8)
    pixels = np.pad(pixels, ((0, 7), (0, 9), (0, 0)))
    path = folder / f"squares{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, pixels, tile=(16, 16), photometric="rgb")
    else:
        Image.fromarray(pixels).save(path)
    return path, kinds


def reports(found, total, description):
    reports.calls.append((found, total, description))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_map_has_the_cosine_of_every_tile(tmp_path, suffix):
    path, kinds = write_image(tmp_path, suffix)
    reports.calls = []
    # The middle of the second square of the third row.
    tile_map = map_tiles(MeanColors(), path, (31, 52), tile=20, progress=reports)
    assert tile_map.size == (87, 129)
    assert tile_map.query == (21, 42)
    assert tile_map.tops.tolist() == [0, 20, 40, 60]
    assert tile_map.lefts.tolist() == [0, 20, 40, 60, 80, 100]
    image = np.asarray(Image.open(path)).astype(float)
    query = image[42:62, 21:41].mean(axis=(0, 1))
    unit = COLORS / np.linalg.norm(COLORS, axis=1, keepdims=True)
    expected = unit @ query / np.linalg.norm(query)
    np.testing.assert_allclose(tile_map.similarities, expected[kinds], atol=1e-5)
    assert tile_map.overview.shape == (87, 129, 3)
    assert reports.calls[0][1:] == reports.calls[-1][1:] == (25, "embed")


def test_a_finer_stride_and_the_edges(tmp_path):
    path, _ = write_image(tmp_path)
    tile_map = map_tiles(MeanColors(), path, (128, 0), tile=20, stride=10)
    assert tile_map.query == (109, 0)  # Moved into the image.
    assert tile_map.lefts.tolist() == list(range(0, 110, 10))
    assert tile_map.similarities.shape == (7, 11)


def test_the_most_similar_tiles_share_no_pixels(tmp_path):
    path, _ = write_image(tmp_path)
    tile_map = map_tiles(MeanColors(), path, (30, 50), tile=20, stride=5)
    listed = tile_map.most_similar(8)
    assert len(listed) == 8
    similarities = [similarity for *_, similarity in listed]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] == pytest.approx(1, abs=1e-5)
    places = [tile_map.query, *((left, top) for left, top, _ in listed)]
    for i, (x, y) in enumerate(places):
        for v, u in places[:i]:
            assert max(abs(x - v), abs(y - u)) >= 20
    assert len(tile_map.most_similar(1000)) < 24


def test_tiles_that_cannot_be_read_are_left_out(tmp_path):
    pixels = np.asarray(Image.open(write_image(tmp_path)[0]))
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, pixels, tile=(16, 16), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    data = path.read_bytes()
    path.write_bytes(data[:offset] + bytes(count) + data[offset + count :])
    tile_map = map_tiles(MeanColors(), path, (70, 50), tile=20)
    is_bad = np.isnan(tile_map.similarities)
    assert is_bad[0, 0]
    assert is_bad.sum() == 1
    assert not any(np.isnan(x) for *_, x in tile_map.most_similar(100))
    with pytest.raises(errors.DataError, match="xywh=0,0,20,20: cannot be read; give"):
        map_tiles(MeanColors(), path, (3, 3), tile=20)


def test_the_default_tile_is_that_of_training():
    data = ml_collections.ConfigDict(
        dict(source=dict(name="tiles", tile=48, level=2), image_size=32)
    )
    assert tile_maps.trained_tiles(data) == {"tile": 48, "level": 2}
    data.source = dict(name="tiles")
    assert tile_maps.trained_tiles(data) == {"tile": 64, "level": 0}
    data.source = dict(name="folder", level=3)
    assert tile_maps.trained_tiles(data) == {"tile": 32, "level": 0}


@pytest.mark.parametrize(
    ("at", "options", "message"),
    [
        ((129, 5), {}, r"the place 129,5 is outside of its 129 x 87 pixels; .* 0 to"),
        ((-1, 5), {}, "the place -1,5 is outside"),
        ((5, 87), {}, "the place 5,87 is outside"),
        ((5, 5), dict(tile=88), "has 129 x 87 pixels, too few for a tile of 88 x 88"),
        ((5, 5), dict(level=1), "squares.png: has no level 1"),
    ],
)
def test_places_and_tiles_that_the_image_lacks(tmp_path, at, options, message):
    path, _ = write_image(tmp_path)
    with pytest.raises(errors.DataError, match=message):
        map_tiles(MeanColors(), path, at, **{"tile": 20, **options})


def test_files_that_are_no_images(tmp_path):
    with pytest.raises(errors.DataError, match=r"none.png: cannot be read \(No such"):
        map_tiles(MeanColors(), tmp_path / "none.png", (0, 0), tile=8)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(errors.DataError, match=r"text\.png: not an image"):
        map_tiles(MeanColors(), tmp_path / "text.png", (0, 0), tile=8)
