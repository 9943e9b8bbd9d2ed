import csv
import dataclasses
import hashlib
import os
import unicodedata

from absl import logging
import ml_collections
import numpy as np
from PIL import Image
import pyarrow
import pyarrow.parquet
import pytest

from deeprank_jax import data
from deeprank_jax.data import errors, files, images, labels, splits
from deeprank_jax.data import records as records_lib


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_classes(root, num_classes, num_images, parent=lambda i: ""):
    for i in range(num_classes):
        for j in range(num_images):
            write_image(root / parent(i) / f"class {i}" / f"{j}.png", seed=i * 100 + j)


def create(name, directory):
    return data.create_records(
        ml_collections.ConfigDict({"name": name, "dir": str(directory)})
    )


def create_pool(class_names, num_images, fill=""):
    """Returns records without images, `num_images` for each class."""
    labels_of = np.repeat(np.arange(len(class_names)), num_images)
    return records_lib.Records(
        name="pool",
        attributes=labels_of[:, None].astype(np.int32),
        level_names=("level_1",),
        label_names=(tuple(class_names),),
        read=lambda index: b"",
        describe=lambda index: f"{class_names[labels_of[index]]}/{fill}{index}.png",
    )


def num_anchor_classes(records):
    """Returns how many classes have two images."""
    return int(np.sum(np.bincount(records.attributes[:, -1]) >= 2))


def paths_of(records):
    return [records.describe(i) for i in range(len(records))]


def byte(name):
    return hashlib.sha256(name.encode()).digest()[0]


@pytest.fixture
def warnings_logged(monkeypatch):
    logged = []
    log = lambda message, *args: logged.append(message % args)
    monkeypatch.setattr(logging, "warning", log)
    return logged


def test_labels_number_paths_in_order():
    columns = [
        np.array(["b", "a", "b", "a", "b"]),
        np.array(["x", "x", "w", "x", "x"]),
    ]
    attributes, firsts = labels.encode_labels(columns)
    assert attributes.tolist() == [[1, 2], [0, 0], [1, 1], [0, 0], [1, 2]]
    assert attributes.dtype == np.int32
    assert labels.name_labels(columns, firsts) == (("a", "b"), ("a/x", "b/w", "b/x"))


@pytest.mark.parametrize("seed", range(5))
def test_labels_agree_with_a_table_of_paths(seed):
    columns = list(np.random.default_rng(seed).integers(0, 4, (3, 60)))
    attributes, _ = labels.encode_labels(columns)
    for level in range(3):
        paths = [tuple(column[i] for column in columns[: level + 1]) for i in range(60)]
        order = sorted(set(paths))
        assert attributes[:, level].tolist() == [order.index(path) for path in paths]


def test_a_folder_is_split_by_the_hash_of_its_class_paths(tmp_path):
    write_classes(tmp_path, 60, 2, parent=lambda i: f"group {i % 3}")
    records = create("folder", tmp_path)
    assert set(records) == {"train", "validation", "test"}
    everything = []
    for split, part in records.items():
        assert part.name == f"folder/{split}"
        assert part.level_names == ("level_1", "level_2")
        for i, path in enumerate(paths_of(part)):
            group, name, _ = path.split(os.sep)
            assert part.label_name(i, 0) == group
            assert part.label_name(i) == name
            b = byte(f"{group}/{name}")
            expected = "test" if b < 128 else "validation" if b < 152 else "train"
            assert split == expected
            assert part.read(i) == (tmp_path / path).read_bytes()
        assert paths_of(part) == sorted(paths_of(part))
        everything += paths_of(part)
    assert len(everything) == len(set(everything)) == 120


def test_ordinary_names(tmp_path):
    write_classes(tmp_path, 8, 3)
    names = ["a b-c.JPG", "ünï.JpEg", "日本.PNG", "x.y.webp", "-.BMP", "q.TIF", "g.gif"]
    for name in names:
        write_image(tmp_path / "Ελλάδα 1-2" / name)
    parts = create("folder", tmp_path).values()
    found = {path for part in parts for path in paths_of(part)}
    assert {os.path.join("Ελλάδα 1-2", name) for name in names} < found
    for part in parts:
        for i in range(len(part)):
            assert images.decode_image(part.read(i)).shape == (8, 8, 3)


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path, monkeypatch):
    write_classes(tmp_path, 8, 3)
    (tmp_path / "class 1" / "notes.txt").touch()
    (tmp_path / "readme.md").touch()
    (tmp_path / ".DS_Store").touch()
    write_image(tmp_path / ".thumbnails" / "deep" / "0.png")
    logged = []
    monkeypatch.setattr(logging, "info", lambda text, *args: logged.append(text % args))
    records = create("folder", tmp_path)
    assert sum(len(part) for part in records.values()) == 24
    assert len(logged) == 1
    assert "ignored 2 files" in logged[0]


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
    labels_of = {k: set(part.attributes[:, -1].tolist()) for k, part in records.items()}
    assert labels_of["validation"] <= labels_of["train"]
    assert not labels_of["test"] & labels_of["train"]
    total = sum(len(part) for part in records.values())
    assert total == 80
    assert "0 classes are too few to validate" in warnings_logged[0]


def test_tiny_folders_fill_all_splits_or_say_why(tmp_path):
    write_classes(tmp_path, 2, 6)
    parts = create("folder", tmp_path).values()
    assert [np.bincount(part.attributes[:, -1]).tolist() for part in parts] == [
        [2, 2]
    ] * 3
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
    trained = set(parts["train"].attributes[:, 0].tolist())
    for split in ("validation", "test"):
        seen = bool(trained & set(parts[split].attributes[:, 0].tolist()))
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
        attributes=np.stack([coarse, np.arange(40)], axis=1).astype(np.int32),
        level_names=("kind", "item"),
        label_names=(("even", "odd"), tuple(names)),
    )
    given = np.repeat(["train", "test"], 20)
    for parts in (
        splits.split_by_class_hash(pool, names),
        splits.split_as_given(pool, names, given),
    ):
        for part in parts.values():
            assert np.bincount(part.attributes[:, 0]).min() >= 2
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
    parts = splits.split_as_given(pool, names, given)
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
    parts = splits.split_as_given(pool, names, given)
    left_out = set(np.array(paths_of(pool))[2::4].tolist())
    assert not left_out & {path for part in parts.values() for path in paths_of(part)}


def test_given_splits_with_too_few_to_validate_on():
    names = ["a", "b"]
    given = np.array(["train", "train", "train", "test"] * 2)
    with pytest.raises(
        errors.DataError, match="6 images of 2 classes are too few: train"
    ):
        splits.split_as_given(create_pool(names, [4, 4]), names, given)


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


def test_a_class_with_one_image_is_kept_and_named(tmp_path, warnings_logged):
    write_classes(tmp_path, 40, 2)
    write_image(tmp_path / "alone" / "0.png")
    write_image(tmp_path / "lonely" / "0.png")
    records = create("folder", tmp_path)
    assert sum(len(part) for part in records.values()) == 82
    assert len(warnings_logged) == 1
    assert "2 of 42 classes have a single image, e.g. alone" in warnings_logged[0]


def test_a_split_does_not_depend_on_how_accents_are_composed():
    names = [f"café {i}" for i in range(40)]
    for name in names:
        composed = unicodedata.normalize("NFC", name)
        decomposed = unicodedata.normalize("NFD", name)
        assert composed != decomposed
        assert splits.class_split(composed) == splits.class_split(decomposed)


def test_a_missing_folder(tmp_path):
    with pytest.raises(errors.DataError, match=r"nowhere: there is no such folder"):
        create("folder", tmp_path / "nowhere")


def test_no_folder():
    with pytest.raises(errors.DataError, match=r"--config\.data\.dir=PATH"):
        create("folder", "")


def test_an_empty_folder(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "notes.txt").touch()
    with pytest.raises(errors.DataError, match="holds no image"):
        create("folder", tmp_path)


def test_an_unreadable_folder(tmp_path, monkeypatch):
    write_classes(tmp_path, 4, 3)
    scandir = os.scandir

    def refuse(path):
        # Permissions do not stop the superuser, who may run the tests.
        if os.fspath(path).endswith("class 2"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        errors.DataError, match=r"class 2: cannot be read \(Permission denied\)"
    ):
        create("folder", tmp_path)


def test_a_link_that_leads_nowhere_but_to_itself(tmp_path):
    write_classes(tmp_path, 3, 6)
    (tmp_path / "class 1" / "again").symlink_to("again")
    with pytest.raises(errors.DataError, match=r"again: cannot be read .*move it away"):
        create("folder", tmp_path)


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_a_path_that_the_system_refuses(tmp_path, kind):
    with pytest.raises(errors.DataError, match=r"cannot be read \(File name too long"):
        create(kind, tmp_path / ("x" * 300))


def test_a_manifest_with_a_path_that_the_system_refuses(tmp_path):
    file = tmp_path / "m.csv"
    file.write_text("path,level_1\n" + f"{'x' * 300}.png,a\n" * 12)
    with pytest.raises(errors.DataError, match="none of its first 12 files exist"):
        create("manifest", file)


def test_names_that_are_not_utf_8(tmp_path):
    root = os.path.join(os.fsencode(tmp_path), b"caf\xe9s")
    images_written = {}
    # Shown alike, the first two are still two classes.
    for name in (b"caf\xe9", rb"caf\xe9", b"plain", "ünï".encode()):
        os.makedirs(os.path.join(root, name))
        for j in range(6):
            path = os.path.join(name, b"%d \xff.png" % j)
            write_image(tmp_path / "one.png", seed=len(images_written))
            os.rename(tmp_path / "one.png", os.path.join(root, path))
            with open(os.path.join(root, path), "rb") as file:
                images_written[file.read()] = path
    records = create("folder", os.fsdecode(root))
    found = []
    for part in records.values():
        assert len(part.label_names[0]) == 4
        assert {r"caf\xe9", "plain", "ünï"} == set(part.label_names[0])
        part.fingerprint.encode()
        for i in range(len(part)):
            found.append(part.read(i))
            path = images_written[part.read(i)]
            assert part.describe(i) == path.decode("utf-8", "backslashreplace")
            assert part.describe(i).startswith(part.label_name(i) + os.sep)
            assert part.describe(i).endswith(r" \xff.png")
    assert sorted(found) == sorted(images_written)


def test_errors_about_names_that_are_not_utf_8_can_be_printed(tmp_path):
    root = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    with pytest.raises(errors.DataError, match=r"caf\\xe9: there is no such folder"):
        create("folder", os.fsdecode(root))
    with pytest.raises(errors.DataError, match=r"caf\\xe9: there is no such manifest"):
        create("manifest", os.fsdecode(root))
    os.makedirs(root)
    with pytest.raises(errors.DataError, match=r"caf\\xe9: holds no image"):
        create("folder", os.fsdecode(root))
    assert files.printable(os.fsdecode(root)).encode().endswith(rb"caf\xe9")


def test_unequal_depths_name_two_folders(tmp_path):
    write_classes(tmp_path, 2, 2)
    write_image(tmp_path / "class 1" / "deeper" / "0.png")
    with pytest.raises(errors.DataError) as error:
        create("folder", tmp_path)
    assert str(tmp_path / "class 0") in str(error.value)
    assert str(tmp_path / "class 1" / "deeper") in str(error.value)


def test_images_outside_of_classes(tmp_path):
    write_image(tmp_path / "0.png")
    with pytest.raises(errors.DataError, match=r"0\.png: lies in no class folder"):
        create("folder", tmp_path)


def test_a_link_to_a_class_counts_and_a_loop_is_an_error(tmp_path):
    write_classes(tmp_path / "images", 3, 4)
    write_classes(tmp_path / "elsewhere", 1, 4)
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere" / "class 0")
    records = create("folder", tmp_path / "images")
    assert sum(len(part) for part in records.values()) == 16
    (tmp_path / "images" / "class 1" / "loop").symlink_to(tmp_path / "images")
    with pytest.raises(errors.DataError, match="a link to a folder that it lies in"):
        create("folder", tmp_path / "images")


def write_manifest(path, columns):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def manifest_columns(root):
    rows = []
    for i in range(40):
        for j in range(2):
            path = f"files/{i}, {j}.png"
            write_image(root / path, seed=i * 10 + j)
            rows.append((path, f"group, {i % 3}", f"Klasse {i}"))
    return dict(
        zip(("path", "level_1", "level_2"), zip(*rows, strict=True), strict=True)
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_a_manifest(tmp_path, suffix):
    columns = manifest_columns(tmp_path)
    file = tmp_path / f"manifest{suffix}"
    write_manifest(file, {**columns, "comment": columns["path"]})
    records = create("manifest", file)
    expected = {row[0]: row[1:] for row in zip(*columns.values(), strict=True)}
    found = {}
    for split, part in records.items():
        assert part.name == f"manifest/{split}"
        for i, path in enumerate(paths_of(part)):
            found[path] = (part.label_name(i, 0), part.label_name(i, 1))
            assert splits.class_split("/".join(found[path])) == split
            assert part.read(i) == (tmp_path / path).read_bytes()
    assert found == expected


def test_a_manifest_with_a_byte_order_mark(tmp_path):
    write_manifest(tmp_path / "m.csv", manifest_columns(tmp_path))
    text = (tmp_path / "m.csv").read_bytes()
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbf" + text)
    assert (
        sum(len(part) for part in create("manifest", tmp_path / "m.csv").values()) == 80
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("missing", ["path", "level_1"])
def test_a_manifest_without_a_column(tmp_path, suffix, missing):
    columns = manifest_columns(tmp_path)
    del columns[missing]
    file = tmp_path / f"m{suffix}"
    write_manifest(file, columns)
    with pytest.raises(errors.DataError, match=f"has no column '{missing}'") as error:
        create("manifest", file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_without_a_value(tmp_path, suffix):
    columns = manifest_columns(tmp_path)
    columns["level_2"] = (*columns["level_2"][:-1], None)
    write_manifest(tmp_path / f"m{suffix}", columns)
    with pytest.raises(errors.DataError, match="row 80 has no level_2"):
        create("manifest", tmp_path / f"m{suffix}")


def test_a_missing_manifest(tmp_path):
    with pytest.raises(errors.DataError, match="there is no such manifest"):
        create("manifest", tmp_path / "m.csv")


def test_a_manifest_of_another_kind(tmp_path):
    (tmp_path / "m.json").touch()
    with pytest.raises(errors.DataError, match=r"neither \.csv nor \.parquet"):
        create("manifest", tmp_path / "m.json")


@pytest.mark.parametrize(
    ("name", "content"), [("m.csv", b"\xff\xfe\x00"), ("m.parquet", b"not parquet")]
)
def test_an_unreadable_manifest(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(errors.DataError, match="cannot be read"):
        create("manifest", tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "has no column 'path'"), ("path,level_1\n", "lists no image")],
)
def test_an_empty_manifest(tmp_path, content, message):
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(errors.DataError, match=message):
        create("manifest", tmp_path / "m.csv")


def test_a_manifest_in_the_wrong_folder(tmp_path):
    columns = manifest_columns(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    write_manifest(tmp_path / "elsewhere" / "m.csv", columns)
    with pytest.raises(errors.DataError, match="none of its first 80 files exist"):
        create("manifest", tmp_path / "elsewhere" / "m.csv")
