"""A run notices that its images have changed under their names."""

from helpers import own_images
import numpy as np
from PIL import Image
import pytest
import tifffile

from deeprank_jax.data.sources import folder, tiles
from deeprank_jax.training import image_digest


@pytest.fixture
def photos(tmp_path):
    own_images.write_classes(tmp_path / "photos", num_classes=6, num_images=8)
    return tmp_path / "photos"


def digests(photos):
    records = folder.create_records(str(photos), split_by="image")
    return image_digest.digest_images(records)


def test_the_digest_is_that_of_the_images_alone(photos, tmp_path):
    before = digests(photos)
    for path in photos.rglob("*.png"):
        path.touch()
    assert digests(photos.rename(tmp_path / "moved")) == before
    assert set(before) == {"train", "validation", "test"}


def test_replaced_images_are_noticed_once_a_run_continues(
    photos, tmp_path, warnings_logged
):
    noted = tmp_path / "images.json"
    image_digest.note_images(noted, digests(photos))
    image_digest.note_images(noted, digests(photos))
    assert not warnings_logged
    for path in photos.rglob("*.png"):
        pixels = np.asarray(Image.open(path))
        Image.fromarray(255 - pixels).save(path)
    image_digest.note_images(noted, digests(photos))
    assert "images of train and validation and test have changed" in warnings_logged[0]
    assert image_digest.changed_splits(noted, digests(photos)) == [
        "train", "validation", "test",
    ]  # fmt: skip


def test_one_replaced_image_of_another_size_is_noticed(photos, tmp_path):
    noted = tmp_path / "images.json"
    image_digest.note_images(noted, digests(photos))
    with next(photos.rglob("*.png")).open("ab") as file:
        file.write(b"\0")
    assert len(image_digest.changed_splits(noted, digests(photos))) == 1


def test_a_run_of_an_earlier_version_has_no_digests(photos, tmp_path, warnings_logged):
    assert image_digest.changed_splits(tmp_path / "gone.json", digests(photos)) == []
    assert not warnings_logged


@pytest.mark.parametrize(("old", "new"), [("[", ""), ("{", "["), ("a", "b")])
def test_damaged_digests_are_said(photos, tmp_path, warnings_logged, old, new):
    path = tmp_path / "images.json"
    image_digest.note_images(path, digests(photos))
    text = path.read_text()
    path.write_text(text.replace(old, new, 1) if old in text else new)
    assert image_digest.changed_splits(path, digests(photos)) == []
    assert f"{path} is damaged" in warnings_logged[0]


def test_of_many_images_the_sizes_of_a_fixed_sample_are_read(photos, monkeypatch):
    monkeypatch.setattr(image_digest, "_NUM_SIZES", 5)
    paths: list[str] = []
    size = image_digest._size

    def note(path):
        paths.append(path)
        return size(path)

    monkeypatch.setattr(image_digest, "_size", note)
    before = digests(photos)
    first = list(paths)
    num_images = len(list(photos.rglob("*.png")))
    assert 5 <= len(set(first)) == len(first) <= 15 < num_images
    assert digests(photos) == before
    assert paths == first * 2


def test_tiles_that_cannot_be_decoded_end_nothing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 320, 3)).astype(np.uint8)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pixels, tile=(32, 32), photometric="rgb", compression="zlib")
    whole = image_digest.digest_images(tiles.create_records(str(tmp_path), tile=32))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    data = path.read_bytes()
    path.write_bytes(data[:offset] + bytes(count) + data[offset + count :])
    damaged = image_digest.digest_images(tiles.create_records(str(tmp_path), tile=32))
    assert damaged["train"] != whole["train"]
    assert damaged["test"] == whole["test"]
