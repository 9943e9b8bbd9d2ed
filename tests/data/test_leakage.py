import itertools
import os

import cv2
import numpy as np
import pytest

from deeprank_jax.data import leakage
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records

SIZE = 96


def encode(image, extension=".png", *options):
    return cv2.imencode(extension, image[..., ::-1], list(options))[1].tobytes()


def create_photo(seed, size=240):
    """Blobs of many sizes, as smooth as photographs are."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size, 3))
    for side in (3, 6, 12, 24):
        image += cv2.resize(
            rng.random((side, side, 3)), (size, size), interpolation=cv2.INTER_CUBIC
        )
    return np.clip(image * 64, 0, 255).astype(np.uint8)


def create_records(split, images, classes=None, names=None):
    classes = np.arange(len(images)) if classes is None else np.array(classes)
    names = names or tuple(f"class {i}" for i in range(int(classes.max()) + 1))
    return Records(
        name=f"own/{split}",
        labels=classes.astype(np.int32)[:, None],
        level_names=("class",),
        label_names=(tuple(names),),
        read=lambda index: images[index],
        describe=lambda index: f"{split}/{index}",
    )


def create_reader(records, size=SIZE):
    return ImageReader(records, image_size=size, workers=0)


def find(splits, *, size=SIZE, max_images=1000):
    readers = {name: create_reader(records, size) for name, records in splits.items()}
    return leakage.find_leakage(splits, readers, max_images=max_images)


def worse(image):
    small = cv2.resize(image, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    return encode(small, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 60)


@pytest.mark.parametrize("size", [32, SIZE])
def test_copies_are_found_and_what_only_looks_alike_is_not(size):
    photos = [create_photo(seed) for seed in range(12)]
    shifted = np.roll(photos[5], 8, axis=1)
    train = create_records("train", [encode(photo) for photo in photos])
    test = create_records(
        "test",
        [
            encode(create_photo(100)),
            worse(photos[3]),
            encode(photos[7]),
            b"not an image",
            encode(shifted),
            encode(photos[2], ".jpg", cv2.IMWRITE_JPEG_QUALITY, 60),
        ],
    )
    found = find({"train": train, "test": test}, size=size)["test"]
    (same, *others) = found.copies
    assert same == ("test/2", "train/7", 0.0)
    assert {pair[:2] for pair in others} == {
        ("test/1", "train/3"),
        ("test/5", "train/2"),
    }
    assert all(0 < distance < 7 / 255 for *_, distance in others)
    distances = [distance for *_, distance in found.copies]
    assert distances == sorted(distances)
    assert (found.num_images, found.num_classes) == (6, 6)


@pytest.mark.parametrize("size", [64, 128])
def test_fine_patterns_of_one_mean_colour_are_no_copies(size):
    """Shrunk to 16 pixels, stripes are grey, whichever way they run."""
    stripes = np.zeros((size, size, 3), np.uint8)
    stripes[np.arange(size) % (size // 16) < size // 32] = 255
    across = np.ascontiguousarray(stripes.transpose(1, 0, 2))
    splits = {
        "train": create_records("train", [encode(stripes)]),
        "test": create_records("test", [encode(across), encode(stripes)]),
    }
    thumbnails = leakage.create_thumbnails(create_reader(splits["test"], size), 2)
    np.testing.assert_allclose(thumbnails[0], thumbnails[1], atol=1e-6)
    copies = find(splits, size=size)["test"].copies
    assert copies == [("test/1", "train/0", 0.0)]


def test_the_nearest_is_that_of_a_loop(monkeypatch):
    monkeypatch.setattr(leakage, "_BLOCK_VALUES", 100)
    rng = np.random.default_rng(0)
    train = rng.random((30, 12)).astype(np.float32)
    other = rng.random((25, 12)).astype(np.float32)
    for row in (0, 3, 9, 24):
        noise = rng.normal(size=12) * 0.008
        other[row] = train[row] + noise.astype(np.float32)
    train[3], train[11], other[9] = np.nan, train[24], np.nan
    expected = []
    for i, j in itertools.product(range(25), range(30)):
        distance = np.sqrt(np.mean((train[j] - other[i]) ** 2))
        if distance <= leakage.MAX_THUMBNAIL_DISTANCE and i not in dict(expected):
            expected.append((i, j))
    own, nearest = leakage._find_nearest(train, other)
    assert list(zip(own.tolist(), nearest.tolist(), strict=True)) == expected
    assert [i for i, _ in expected] == [0, 24]
    # Of equals the first.
    assert expected[-1] == (24, 11)


@pytest.mark.parametrize("unreadable", ["train", "test"])
def test_a_split_of_which_nothing_can_be_read_has_no_copies(unreadable):
    images = {"train": [encode(create_photo(0))], "test": [encode(create_photo(0))]}
    splits = {k: create_records(k, v) for k, v in images.items()}
    assert len(find(splits)["test"].copies) == 1
    images[unreadable][0] = b"no"
    assert find(splits)["test"].copies == []


def test_more_images_than_asked_for_are_not_read():
    def fail(index):
        raise AssertionError("An image was read.")

    images = [encode(create_photo(0))] * 3
    splits = {name: create_records(name, images) for name in ("train", "test")}
    assert len(find(splits, max_images=6)["test"].copies) == 3
    for records in splits.values():
        object.__setattr__(records, "read", fail)
    found = find(splits, max_images=5)["test"]
    assert found.copies is None
    assert found.describe() == "3 of 3 classes, copies were not searched"


NAMES = (
    "robin", "wren", "red kite", "a/front", "b/front", "jay", "crow",
    "Robin", "uk/red_Kite ", "c/front", "x/jay", "y/Jay", "owl", "fox",
)  # fmt: skip


def classes_of(split, classes):
    return create_records(split, [b""] * len(classes), classes, NAMES)


def test_classes_that_are_called_alike_are_named():
    train = classes_of("train", [0, 0, 1, 2, 3, 4, 5, 12])
    test = classes_of("test", [7, 8, 8, 9, 10, 11, 6, 12, 13])
    # "front" names two classes of training, "jay" two of test: so they tell nothing.
    assert leakage.find_namesakes(train, test) == [
        ("Robin", "robin"),
        ("uk/red_Kite ", "red kite"),
    ]
    assert leakage.seen_classes(train, test) == ["owl"]
    assert leakage.find_namesakes(train, train) == []
    assert leakage.seen_classes(train, train) == [
        NAMES[i] for i in (0, 1, 2, 3, 4, 5, 12)
    ]


def create_leakage(**changes):
    values = dict(
        num_images=1200,
        num_classes=9,
        seen_classes=[],
        namesakes=(),
        copies=(),
    )
    return leakage.Leakage(**(values | changes))


def test_what_is_shared_is_said_and_warned_of(warnings_logged):
    assert create_leakage().describe() == (
        "0 of 9 classes, 0 of 1,200 images have a copy"
    )
    leakage.warn_of_leakage({"test": create_leakage(seen_classes=["owl"])})
    leakage.warn_of_leakage({"test": create_leakage(copies=None)})
    assert warnings_logged == []
    copies = [("t/0", "a/3", 0.0), *((f"t/{i}", "a/4", 0.01) for i in range(1, 5))]
    shared = create_leakage(namesakes=[("Robin", "robin")], copies=copies)
    leakage.warn_of_leakage({"validation": create_leakage(), "test": shared})
    (warning,) = warnings_logged
    assert warning.startswith(
        "The test split shares with training: 0 of 9 classes, 1 classes with similar "
        "names (e.g. 'Robin' like 'robin'), 5 of 1,200 images have a copy (1 exact; "
        "e.g. 't/0' of 'a/3', 't/1' of 'a/4', 't/2' of 'a/4')"
    )
    leakage.warn_of_leakage({"test": create_leakage(namesakes=[("A", "a")])})
    leakage.warn_of_leakage({"test": create_leakage(copies=copies)})
    assert len(warnings_logged) == 3


def test_what_was_found_is_read_unless_it_is_of_anything_else(tmp_path):
    path = tmp_path / "leakage.json"
    name = os.fsdecode(b"f\xfc/1.png")
    found = {"test": create_leakage(copies=[[name, "a", 0.5]], namesakes=[["A", "a"]])}
    assert leakage.read_leakage(path, {"x": 1}) is None
    leakage.write_leakage(path, found, {"x": 1})
    assert leakage.read_leakage(path, {"x": 1}) == found
    assert leakage.read_leakage(path, {"x": 2}) is None
    for text in (
        path.read_text()[:-9],
        "[]",
        "{}",
        path.read_text().replace("num_", ""),
    ):
        path.write_text(text)
        assert leakage.read_leakage(path, {"x": 1}) is None


def test_damaged_leakage_is_searched_for_again(tmp_path, warnings_logged):
    path = tmp_path / "leakage.json"
    copies = [("a/1.png", "b/1.png", 0.125)]
    one = leakage.Leakage(
        num_images=9, num_classes=3, seen_classes=[], namesakes=[], copies=copies
    )
    leakage.write_leakage(path, {"test": one}, {"x": 1})
    for old, new in (("b/1.png", "b/3.png"), ("sha256", "sha257"), ("}", "")):
        text = path.read_text()
        path.write_text(text.replace(old, new, 1))
        assert leakage.read_leakage(path, {"x": 1}) is None
        assert f"{path} is damaged" in warnings_logged.pop()
        path.write_text(text)
    assert leakage.read_leakage(path, {"x": 1}) is not None
