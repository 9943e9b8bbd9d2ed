from concurrent import futures
import csv
import io
import threading

from helpers.own_images import create_pool
import numpy as np
from PIL import Image
import pytest

from deeprank_jax.data import decode, reader
from deeprank_jax.data import records as records_lib

SIZE = 8


class Source:
    """Records whose reads are counted, some of them bad."""

    def __init__(self, num_records, bad=None):
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (num_records, 12, 16, 3), np.uint8)
        self.bad = bad or {}
        self.reads = []
        self._lock = threading.Lock()
        self.records = records_lib.Records(
            name="shapes/train",
            labels=np.zeros((num_records, 1), np.int32),
            level_names=("shape",),
            label_names=(("round",),),
            read=self.read,
            describe=lambda index: f"images/{index:03d}.png",
        )

    def read(self, index):
        with self._lock:
            self.reads.append(index)
        if index in self.bad:
            if isinstance(self.bad[index], Exception):
                raise self.bad[index]
            return self.bad[index]
        buffer = io.BytesIO()
        Image.fromarray(self.pixels[index]).save(buffer, "PNG")
        return buffer.getvalue()

    def expected(self, index):
        if index in self.bad:
            return np.zeros((SIZE, SIZE, 3), np.uint8)
        return decode.resize_image(self.pixels[index], SIZE)


BAD = {
    3: b"<html>not found</html>",
    5: b"",
    7: PermissionError(13, "Permission denied"),
}


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("cache_mib", [0, 1, 700 / 2**20])
def test_load(workers, cache_mib, warnings_logged):
    source = Source(20, BAD)
    indices = np.array([4, 3, 0, 4, 19, 5, 3, 7, 1])
    with reader.ImageReader(
        source.records, image_size=SIZE, workers=workers, cache_mib=cache_mib
    ) as images_of:
        for _ in range(3):
            loaded, ok = images_of.load(indices)
            assert ok.tolist() == [index not in BAD for index in indices]
            for image, index in zip(loaded, indices, strict=True):
                np.testing.assert_array_equal(image, source.expected(index))
    assert len(warnings_logged) == 3


def test_each_distinct_index_is_read_once_a_call():
    source = Source(20)
    with reader.ImageReader(source.records, image_size=SIZE) as images_of:
        images_of.load(np.array([2, 2, 9, 2, 9]))
    assert sorted(source.reads) == [2, 9]


def test_the_cache_keeps_the_first_images_that_fit():
    source = Source(20)
    three_images = 3 * SIZE * SIZE * 3 / 2**20
    with reader.ImageReader(
        source.records, image_size=SIZE, cache_mib=three_images, workers=0
    ) as images_of:
        for index in (5, 6, 7, 8):
            images_of.load(np.array([index]))
        source.reads.clear()
        loaded, _ = images_of.load(np.arange(4, 10))
    assert source.reads == [4, 8, 9]
    for image, index in zip(loaded, range(4, 10), strict=True):
        np.testing.assert_array_equal(image, source.expected(index))


@pytest.mark.parametrize("cache_mib", [0, 1])
def test_images_are_in_fresh_memory(cache_mib):
    source = Source(4)
    indices = np.arange(4)
    with reader.ImageReader(
        source.records, image_size=SIZE, cache_mib=cache_mib
    ) as images_of:
        first, _ = images_of.load(indices)
        second, _ = images_of.load(indices)
        assert not np.shares_memory(first, second)
        second[...] = 0
        third, _ = images_of.load(indices)
    np.testing.assert_array_equal(first, third)


def test_many_threads_share_a_reader():
    source = Source(60)
    expected = np.stack([source.expected(index) for index in range(60)])
    rng = np.random.default_rng(0)
    wanted = [rng.integers(0, 60, 16) for _ in range(60)]
    with (
        reader.ImageReader(
            source.records, image_size=SIZE, cache_mib=0.005, workers=3
        ) as images_of,
        futures.ThreadPoolExecutor(8) as pool,
    ):
        for indices, (loaded, ok) in zip(
            wanted, pool.map(images_of.load, wanted), strict=True
        ):
            assert ok.all()
            np.testing.assert_array_equal(loaded, expected[indices])


def test_batches_cover_all_records_in_order(warnings_logged):
    source = Source(20, BAD)
    with reader.ImageReader(source.records, image_size=SIZE) as images_of:
        batches = list(images_of.batches(8))
    assert [batch["images"].shape for batch in batches] == [(8, SIZE, SIZE, 3)] * 3
    indices = np.concatenate([batch["indices"] for batch in batches])
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert indices[:20].tolist() == list(range(20))
    assert mask.tolist() == [i not in BAD and i < 20 for i in range(24)]
    pixels = np.concatenate([batch["images"] for batch in batches])
    for index in range(20):
        np.testing.assert_array_equal(pixels[index], source.expected(index))
    assert not pixels[20:].any()


def test_bad_images_are_logged_and_listed_once(tmp_path, warnings_logged):
    source = Source(2_412, BAD)
    path = tmp_path / "run" / "bad_images.csv"
    bad_images = reader.BadImages(path, 2_412, max_share=0.01)
    with reader.ImageReader(
        source.records, image_size=SIZE, bad_images=bad_images
    ) as images_of:
        for _ in range(2):
            images_of.load(np.arange(10))
    assert warnings_logged == [
        "images/003.png: not an image (first bytes '<htm'); skipped, 1 of 2,412 so far",
        "images/005.png: empty file (0 bytes); skipped, 2 of 2,412 so far",
        "images/007.png: cannot be read (Permission denied); skipped, 3 of 2,412 so "
        "far",
    ]
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["split", "record", "reason"]
    assert [row[:2] for row in rows[1:]] == [
        ["shapes/train", f"images/00{i}.png"] for i in (3, 5, 7)
    ]
    again = reader.BadImages(path, 2_412, max_share=0.01)
    again.add("shapes/train", "images/003.png", "not an image")
    again.add("shapes/train", "images/008.png", "truncated")
    with path.open(newline="") as file:
        assert [row[1] for row in csv.reader(file)][4:] == ["images/008.png"]
    assert again.num_bad == 2


def test_a_list_with_an_open_quote_is_mended(tmp_path):
    path = tmp_path / "bad_images.csv"
    rows = "split,record,reason\na/train,1.png,truncated\n"
    path.write_text(f'{rows}a/train,"2.png,{"x" * 200_000}')
    reader.BadImages(path, 9, max_share=1).add("a/train", "3.png", "truncated")
    assert path.read_text() == f"{rows}a/train,3.png,truncated\n"


def test_too_many_bad_images(tmp_path):
    source = Source(20, BAD)
    path = tmp_path / "bad_images.csv"
    bad_images = reader.BadImages(path, 20, max_share=0.1)
    with reader.ImageReader(
        source.records, image_size=SIZE, bad_images=bad_images
    ) as images_of:
        images_of.load(np.arange(6))
        with pytest.raises(reader.TooManyBadImagesError) as error:
            images_of.load(np.arange(20))
    message = str(error.value)
    assert message.startswith("3 of 20 records cannot be read")
    assert "config.data.max_bad_share=0.1" in message
    assert str(path) in message


def test_names_that_are_not_utf_8_do_not_stop_a_run(tmp_path):
    bad_images = reader.BadImages(tmp_path / "bad.csv", 9, max_share=1)
    bad_images.add("a/train", "caf\udce9.jpg", "truncated")
    assert r"caf\udce9.jpg" in (tmp_path / "bad.csv").read_text()


def test_max_pixels_reaches_the_decoder():
    source = Source(2)
    with reader.ImageReader(
        source.records, image_size=SIZE, max_pixels=100
    ) as images_of:
        assert not images_of.load(np.arange(2))[1].any()


def test_an_unknown_fit_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match=r'^fit must be "crop", "pad" or "stretch"'):
        reader.ImageReader(create_pool(["a"], 2), image_size=4, fit="cropped")
