"""Images without labels: splits, pairs for the evaluation, and refusals."""

import cv2
import numpy as np
import pytest

from deeprank_jax import errors
from deeprank_jax.data.sources.unlabelled import create_records


def write_images(folder, num, size=32):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        pixels = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        image = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return folder


def paths_of(records, step=1):
    return [records.describe(i) for i in range(0, len(records), step)]


def test_images_of_any_depth_are_split_and_stay_when_others_come(tmp_path):
    write_images(tmp_path, 40)
    write_images(tmp_path / "a" / "b", 30)
    records = create_records(str(tmp_path))
    splits = {
        path: split
        for split, part in records.items()
        for path in paths_of(part, 1 if split == "train" else 2)
    }
    assert len(splits) == 70
    assert set(splits.values()) == {"train", "validation", "test"}
    write_images(tmp_path / "more", 50)
    for split, part in create_records(str(tmp_path)).items():
        for path in paths_of(part, 1 if split == "train" else 2):
            assert splits.get(path, split) == split


def test_evaluated_images_come_with_a_changed_copy(tmp_path):
    records = create_records(str(write_images(tmp_path, 60)))
    train, test = records["train"], records["test"]
    assert len(np.unique(train.labels)) == len(train)
    np.testing.assert_array_equal(test.labels[::2], test.labels[1::2])
    assert len(np.unique(test.labels)) == len(test) // 2
    assert not np.any(np.isin(test.labels, train.labels))
    for i in range(0, len(test), 2):
        data, changed = test.read(i), test.read(i + 1)
        assert test.describe(i + 1) == f"{test.describe(i)} (changed)"
        assert test.label_name(i) == test.label_name(i + 1) == test.describe(i)
        assert data == (tmp_path / test.describe(i)).read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert changed.shape == image.shape
        assert not np.array_equal(changed, image)
        np.testing.assert_array_equal(changed, test.read(i + 1))


@pytest.mark.parametrize(("num", "test_share"), [(6, 0.5), (4, 0.0), (7, 0.01)])
def test_few_images_give_each_split_two(tmp_path, num, test_share):
    records = create_records(
        str(write_images(tmp_path, num)), test_share=test_share, validation_share=0.1
    )
    sizes = {
        split: len(part) // (1 if split == "train" else 2)
        for split, part in records.items()
    }
    assert ("test" in sizes) == (test_share > 0)
    assert min(sizes.values()) >= 2
    assert sum(sizes.values()) == num


def test_too_few_images_are_refused(tmp_path):
    write_images(tmp_path, 5)
    message = r"has 5 images, and 3 splits of 2 images need 6; add images"
    with pytest.raises(errors.DataError, match=message):
        create_records(str(tmp_path))


def test_a_link_to_an_image_counts_once(tmp_path):
    write_images(tmp_path, 8)
    (tmp_path / "again.png").symlink_to(tmp_path / "3.png")
    records = create_records(str(tmp_path))
    assert sum(len(x) // (1 + (s != "train")) for s, x in records.items()) == 8


def test_a_bad_image_is_left_to_the_reader(tmp_path):
    write_images(tmp_path, 12)
    for path in tmp_path.iterdir():
        path.write_bytes(b"no image")
    test = create_records(str(tmp_path))["test"]
    assert test.read(0) == test.read(1) == b"no image"


def test_a_missing_folder_is_told_without_a_word_of_classes(tmp_path):
    with pytest.raises(errors.DataError) as refusal:
        create_records(str(tmp_path / "nowhere"))
    assert str(refusal.value).endswith(
        "nowhere: there is no such folder; give a folder of images."
    )


def test_records_of_changed_copies_say_what_they_do_not_measure(tmp_path):
    records = create_records(str(write_images(tmp_path, 40)))
    assert records["train"].caveat == ""
    for split in ("validation", "test"):
        assert "may be worse at finding similar images" in records[split].caveat
