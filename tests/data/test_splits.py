import dataclasses
import unicodedata

from helpers.own_images import (
    byte,
    create,
    create_pool,
    num_anchor_classes,
    paths_of,
    write_classes,
    write_image,
)
import numpy as np
import pytest

from deeprank_jax import errors
from deeprank_jax.data import splits


def test_few_classes_are_split_by_record(tmp_path, warnings_logged):
    write_classes(tmp_path, 3, 20)
    records = create("folder", tmp_path)
    names = {split: part.name for split, part in records.items()}
    assert names == {
        "train": "folder/train",
        "validation": "folder/validation (seen classes)",
        "test": "folder/test (seen classes)",
    }
    moved = [
        path
        for split, part in records.items()
        for path in paths_of(part)
        if splits.class_split(path) != split
    ]
    # By their hashes alone no two classes would have two validation images each.
    assert len(moved) == 2
    assert len(warnings_logged) == 1
    assert "3 classes are too few" in warnings_logged[0]


def test_few_validation_classes_are_replaced_by_training_records(
    tmp_path, warnings_logged
):
    kept = [
        name
        for name in (f"class {i}" for i in range(80))
        if not 128 <= byte(name) < 152
    ]
    for i, name in enumerate(kept[:20]):
        for j in range(4):
            write_image(tmp_path / name / f"{j}.png", seed=i * 10 + j)
    records = create("folder", tmp_path)
    assert records["validation"].name == "folder/validation (seen classes)"
    assert records["test"].name == "folder/test"
    assert len(records["validation"]) >= 2
    labels_of = {k: set(part.labels[:, -1].tolist()) for k, part in records.items()}
    assert labels_of["validation"] <= labels_of["train"]
    assert not labels_of["test"] & labels_of["train"]
    total = sum(len(part) for part in records.values())
    assert total == 80
    assert "0 classes are too few for validation" in warnings_logged[0]


def test_tiny_folders_fill_all_splits_or_say_why(tmp_path):
    write_classes(tmp_path, 2, 6)
    parts = create("folder", tmp_path).values()
    assert [np.bincount(part.labels[:, -1]).tolist() for part in parts] == [[2, 2]] * 3
    (tmp_path / "class 1" / "5.png").unlink()
    with pytest.raises(errors.DataError) as error:
        create("folder", tmp_path)
    assert str(error.value) == (
        "folder: 11 images of 2 classes are too few: train, validation and test "
        "each need two classes with two images of their own, e.g. two classes of 6 "
        "images; add images."
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("num_classes", "num_images"),
    [
        *((2, 6), (2, 30), (3, 4), (3, 6), (3, 20), (4, 4), (5, 5), (6, 2), (7, 2)),
        *((10, 2), (10, 3), (10, 5), (12, 6), (20, 5), (30, 2), (60, 3)),
    ],
)
def test_every_split_has_triplets(num_classes, num_images, seed, warnings_logged):
    rng = np.random.default_rng(seed)
    names = [f"{word:08x}" for word in rng.integers(0, 2**32, num_classes)]
    pool = create_pool(names, [num_images] * num_classes, fill=f"{seed}-")
    parts = splits.split_by_class_hash(pool, names)
    assert all(num_anchor_classes(part) >= 2 for part in parts.values())
    paths = [path for part in parts.values() for path in paths_of(part)]
    assert sorted(paths) == sorted(paths_of(pool))
    trained = set(parts["train"].labels[:, 0].tolist())
    for split in ("validation", "test"):
        seen = bool(trained & set(parts[split].labels[:, 0].tolist()))
        assert parts[split].name == f"pool/{split}{' (seen classes)' if seen else ''}"
    again = splits.split_by_class_hash(pool, names)
    assert all(paths_of(again[split]) == paths_of(parts[split]) for split in parts)


@pytest.mark.parametrize("seed", range(60))
def test_every_split_has_triplets_wherever_that_can_be(seed, warnings_logged):
    rng = np.random.default_rng(seed)
    num_images = rng.integers(1, 9, rng.integers(2, 6))
    names = [f"{word:08x}" for word in rng.integers(0, 2**32, len(num_images))]
    pool = create_pool(names, num_images)
    # Each class gives two images to each of up to three splits.
    if np.sum(np.minimum(num_images // 2, 3)) < 6:
        with pytest.raises(errors.DataError, match="are too few"):
            splits.split_by_class_hash(pool, names)
        return
    parts = splits.split_by_class_hash(pool, names)
    assert all(num_anchor_classes(part) >= 2 for part in parts.values())
    assert sum(map(len, parts.values())) == len(pool)


def test_classes_of_one_image_are_split_by_a_coarser_level(warnings_logged):
    names = [f"item {i}" for i in range(40)]
    pool = create_pool(names, [1] * 40)
    coarse = np.arange(40) % 2
    pool = dataclasses.replace(
        pool,
        labels=np.stack([coarse, np.arange(40)], axis=1).astype(np.int32),
        level_names=("kind", "item"),
        label_names=(("even", "odd"), tuple(names)),
    )
    given = np.repeat(["train", "test"], 20)
    for parts in (
        splits.split_by_class_hash(pool, names),
        splits.split_as_stored(pool, names, given),
    ):
        for part in parts.values():
            assert np.bincount(part.labels[:, 0]).min() >= 2
        assert sum(map(len, parts.values())) == 40


def test_a_split_that_has_triplets_by_its_hashes_is_left_alone(warnings_logged):
    names = ["a", "b", "c"]
    pool = create_pool(names, [200] * 3)
    for split, part in splits.split_by_class_hash(pool, names).items():
        assert {splits.class_split(path) for path in paths_of(part)} == {split}


def test_test_classes_of_one_image_are_no_test(warnings_logged):
    names = [f"class {i}" for i in range(60)]
    num_images = [1 if splits.class_split(name) == "test" else 3 for name in names]
    parts = splits.split_by_class_hash(create_pool(names, num_images), names)
    assert num_anchor_classes(parts["test"]) >= 2
    assert parts["test"].name == "pool/test (seen classes)"
    assert "0 for test" in warnings_logged[0]


def test_given_splits_say_whether_their_classes_are_seen():
    names = [f"class {i}" for i in range(4)]
    pool = create_pool(names, [10] * 4)
    given = np.array(["train"] * 12 + ["validation"] * 8 + ["test"] * 20)
    parts = splits.split_as_stored(pool, names, given)
    assert {split: part.name for split, part in parts.items()} == {
        "train": "pool/train",
        "validation": "pool/validation (seen classes)",
        "test": "pool/test",
    }
    assert paths_of(parts["test"]) == paths_of(pool)[20:]


def test_given_splits_of_other_names_are_left_out(warnings_logged):
    names = [f"class {i}" for i in range(3)]
    pool = create_pool(names, [20] * 3)
    given = np.array(["train", "test", "validation_mismatched", "train"] * 15)
    parts = splits.split_as_stored(pool, names, given)
    left_out = set(np.array(paths_of(pool))[2::4].tolist())
    assert not left_out & {path for part in parts.values() for path in paths_of(part)}


def test_given_splits_with_too_few_to_validate_on():
    names = ["a", "b"]
    given = np.array(["train", "train", "train", "test"] * 2)
    with pytest.raises(
        errors.DataError, match="6 images of 2 classes are too few: train"
    ):
        splits.split_as_stored(create_pool(names, [4, 4]), names, given)


def test_a_fingerprint_knows_the_images(tmp_path):
    pool = create_pool(["a", "b"], [3, 3])
    assert pool.fingerprint == create_pool(["a", "b"], [3, 3]).fingerprint
    others = (
        create_pool(["a", "b"], [3, 3], fill="new "),
        create_pool(["a", "b"], [2, 4]),
    )
    assert len({pool.fingerprint, *(other.fingerprint for other in others)}) == 3


def test_a_fingerprint_is_taken_once():
    asked = []
    pool = create_pool(["a"], [3])
    records = dataclasses.replace(pool, describe=lambda i: str(asked.append(i)))
    assert records.fingerprint == records.fingerprint
    assert asked == [0, 1, 2]


def test_a_split_does_not_depend_on_how_accents_are_composed():
    names = [f"café {i}" for i in range(40)]
    for name in names:
        composed = unicodedata.normalize("NFC", name)
        decomposed = unicodedata.normalize("NFD", name)
        assert composed != decomposed
        assert splits.class_split(composed) == splits.class_split(decomposed)
