"""Tiles of a folder of images: their pixels and places, splits and refusals."""

import cv2
import numpy as np
from PIL import Image
import pytest
import tifffile

from deeprank_jax import errors
from deeprank_jax.data import decode
from deeprank_jax.data.sources import tiles as tiles_lib
from deeprank_jax.data.sources.tiles import create_records


def write_images(folder, sizes=((96, 400), (128, 300), (64, 500))):
    rng = np.random.default_rng(0)
    (folder / "more").mkdir(parents=True, exist_ok=True)
    for i, (height, width) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        if i % 3 == 1:
            path = folder / "more" / f"{i}.tif"
            tifffile.imwrite(path, pixels, tile=(32, 32), photometric="rgb")
        else:
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def boxes(records):
    """Returns image, left, top and side of each tile, from its id."""
    ids = [records.describe(i).split("#xywh=") for i in range(len(records))]
    return [(name, *map(int, box.split(",")[:3])) for name, box in ids]


def covered(records, sizes):
    """Returns a mask of the pixels of all tiles, by image."""
    masks = {name: np.zeros(size, int) for name, size in sizes.items()}
    for name, left, top, side in boxes(records):
        masks[name][top : top + side, left : left + side] += 1
    return masks


SIZES = {"0.png": (96, 400), "more/1.tif": (128, 300), "2.png": (64, 500)}


@pytest.mark.parametrize(("tile", "stride"), [(32, None), (24, 10), (16, 40)])
def test_tiles_are_slices_and_places_are_centres(tmp_path, tile, stride):
    write_images(tmp_path)
    for records in create_records(str(tmp_path), tile=tile, stride=stride).values():
        wholes = {
            name: decode.decode_image((tmp_path / name).read_bytes()) for name in SIZES
        }
        assert len(records) > 3
        assert len(set(boxes(records))) == len(records)
        for i, (name, left, top, side) in enumerate(boxes(records)):
            assert side == tile
            assert records.label_name(i) == name
            expected = wholes[name][top : top + side, left : left + side]
            np.testing.assert_array_equal(records.read(i), expected)
            assert records.columns["row"][i] == top + tile // 2
            assert records.columns["column"][i] == left + tile // 2


@pytest.mark.parametrize(("tile", "stride"), [(32, None), (24, 10), (16, 40)])
@pytest.mark.parametrize("split_by", ["region", "image"])
def test_splits_share_no_pixel_and_only_training_overlaps(
    tmp_path, tile, stride, split_by
):
    write_images(tmp_path)
    records = create_records(
        str(tmp_path), tile=tile, stride=stride, split_by=split_by,
        test_share=0.3, validation_share=0.2,
    )  # fmt: skip
    masks = {split: covered(part, SIZES) for split, part in records.items()}
    assert set(masks) == {"train", "validation", "test"}
    for name in SIZES:
        shared = sum(mask[name] > 0 for mask in masks.values())
        assert shared.max() == 1
        for split in ("validation", "test"):
            assert masks[split][name].max() <= 1
    overlaps = max(mask.max() for mask in masks["train"].values())
    assert (overlaps > 1) == (stride == 10)


def test_the_parts_of_an_image_lie_a_tile_apart(tmp_path):
    write_images(tmp_path)
    records = create_records(str(tmp_path), tile=32, test_share=0.3)
    for name in SIZES:
        ends = []
        for split in ("train", "validation", "test"):
            lefts = [left for x, left, *_ in boxes(records[split]) if x == name]
            ends.append((min(lefts), max(lefts) + 32))
        (start, a), (b, c), (d, e) = ends
        assert start == 0
        assert b - a >= 32
        assert d - c >= 32
        assert e <= SIZES[name][1] < e + 32


def test_shares_are_of_the_width(tmp_path):
    write_images(tmp_path, [(32, 2000)])
    records = create_records(
        str(tmp_path), tile=20, test_share=0.25, validation_share=0.15
    )
    sizes = {split: len(part) for split, part in records.items()}
    total = sum(sizes.values())
    assert sizes["test"] / total == pytest.approx(0.25, abs=0.01)
    assert sizes["validation"] / total == pytest.approx(0.15, abs=0.01)
    assert "test" not in create_records(str(tmp_path), tile=20, test_share=0.0)


def test_only_regions_of_training_images_have_a_caveat(tmp_path):
    write_images(tmp_path)
    for split_by in ("region", "image"):
        for split, part in create_records(
            str(tmp_path), tile=32, split_by=split_by
        ).items():
            has_caveat = split_by == "region" and split != "train"
            assert ("other parts of the images" in part.caveat) == has_caveat


def test_whole_images_stay_in_their_split_when_others_come(tmp_path):
    def splits():
        records = create_records(str(tmp_path), tile=32, split_by="image")
        return {x: split for split, part in records.items() for x, *_ in boxes(part)}

    write_images(tmp_path, [(40, 40)] * 30)
    before = splits()
    assert set(before.values()) == {"train", "validation", "test"}
    write_images(tmp_path, [(40, 40)] * 60)
    after = splits()
    assert len(after) == 60
    assert {name: after[name] for name in before} == before


def test_blank_tiles_are_left_out(tmp_path):
    pixels = np.full((32, 320, 3), 200, np.uint8)
    pixels[:, :64] = np.random.default_rng(0).integers(0, 256, (32, 64, 3))
    pixels[:, 224:256] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    pixels[:, 288:] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    options = dict(tile=32, test_share=0.1, validation_share=0.1)
    every = create_records(str(tmp_path), **options)
    some = create_records(str(tmp_path), **options, min_contrast=5.0)
    assert {split: len(part) for split, part in every.items()} == {
        "train": 6, "validation": 1, "test": 1,
    }  # fmt: skip
    assert [left for _, left, *_ in boxes(some["train"])] == [0, 32]
    options["test_share"] = 0.3  # Columns 192 to 224, which are blank, validate.
    message = r"validation: none of its 1 tile has a contrast of .*=5, the largest is 0"
    with pytest.raises(errors.DataError, match=message):
        create_records(str(tmp_path), **options, min_contrast=5.0)


def test_images_that_cannot_be_read_are_skipped(tmp_path, warnings_logged):
    write_images(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "zero.tif").write_bytes(b"")
    records = create_records(str(tmp_path), tile=32)["train"]
    assert {name for name, *_ in boxes(records)} == set(SIZES)
    assert [text.partition(":")[0] for text in warnings_logged] == [
        "bad.png", "zero.tif",
    ]  # fmt: skip
    assert all(text.endswith("; skipped.") for text in warnings_logged)


def test_a_folder_without_a_usable_image(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    message = r"none of its 1 image can be read; the first is bad.png: not an image"
    with pytest.raises(errors.DataError, match=message):
        create_records(str(tmp_path))
    (tmp_path / "bad.png").unlink()
    with pytest.raises(errors.DataError, match="has no image; give a folder"):
        create_records(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(tile=65), r"2.png: has 500 x 64 pixels, too few for a tile of 65 x 65"),
        (dict(tile=60), r"1.tif: its 300 columns of pixels are too few for 3 splits"),
        (dict(level=1), r"0.png: has no level 1 .*it has 1 level"),
    ],
)
def test_images_that_do_not_suit_the_tiles(tmp_path, options, message):
    write_images(tmp_path)
    with pytest.raises(errors.DataError, match=message):
        create_records(str(tmp_path), **options)


def test_too_few_images_to_split(tmp_path):
    write_images(tmp_path, [(40, 400)] * 2)
    message = r'has 2 images that can be read, and 3 splits .*split_by="region"'
    with pytest.raises(errors.DataError, match=message):
        create_records(str(tmp_path), tile=32, split_by="image")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(tile=0), "tile must be a whole number of pixels of at least 1, got 0"),
        (dict(stride=0), "stride must be a whole number .* at least 1, got 0"),
        (dict(stride=1.5), "stride must be a whole number"),
        (dict(level=-1), "level must be at least 0"),
        (dict(split_by="row"), 'split_by must be "region" or "image", got \'row\''),
        (dict(min_contrast=-1.0), r"min_contrast must be in \[0, 127.5\], got -1.0"),
        (dict(cache_mib=-1), "cache_mib must be at least 0"),
        (dict(test_share=1.0), "test_share must be"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    write_images(tmp_path)
    with pytest.raises(ValueError, match=message):
        create_records(str(tmp_path), **options)


def test_listing_decodes_nothing(tmp_path, monkeypatch):
    write_images(tmp_path)

    def refuse(*arguments):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(tiles_lib.LargeImages, "read", refuse)
    monkeypatch.setattr(decode, "decode_image", refuse)
    monkeypatch.setattr(cv2, "imdecode", refuse)
    records = create_records(str(tmp_path), tile=32)
    assert sum(map(len, records.values())) > 30


def test_a_cache_that_is_too_small_is_named(tmp_path, warnings_logged):
    write_images(tmp_path)
    create_records(str(tmp_path), tile=32, cache_mib=0.21)
    # The two PNGs, not the TIFF: 3 * (96 * 400 + 64 * 500) bytes are .2014 MiB.
    assert not warnings_logged
    create_records(str(tmp_path), tile=32, cache_mib=0.2)
    (text,) = warnings_logged
    assert "2 images that are decoded whole take 0 MiB, more than" in text
    assert "config.data.source.cache_mib=0.2" in text
