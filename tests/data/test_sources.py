import csv
import os

from absl import logging
from helpers.own_images import byte, create, paths_of, write_classes, write_image
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from deeprank_jax import errors, files
from deeprank_jax.data import decode, labels, splits


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


@pytest.mark.parametrize(
    ("parent", "titles"),
    [
        ("", ("folder",)),
        ("a", ("outer folder", "folder")),
        ("a/b", ("level-1 folder", "level-2 folder", "folder")),
    ],
)
def test_levels_of_folders_have_titles_for_people(tmp_path, parent, titles):
    write_classes(tmp_path, 6, 2, parent=lambda i: parent)
    for part in create("folder", tmp_path).values():
        assert part.level_titles == titles
        assert part.level_names == tuple(f"level_{i + 1}" for i in range(len(titles)))


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
            assert decode.decode_image(part.read(i)).shape == (8, 8, 3)


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path, monkeypatch):
    write_classes(tmp_path, 8, 3)
    (tmp_path / "class 1" / "notes.txt").touch()
    (tmp_path / "readme.md").touch()
    (tmp_path / "class 1" / "left.heic").touch()  # Counted by the warning.
    (tmp_path / ".DS_Store").touch()
    write_image(tmp_path / ".thumbnails" / "deep" / "0.png")
    logged = []
    monkeypatch.setattr(logging, "info", lambda text, *args: logged.append(text % args))
    records = create("folder", tmp_path)
    assert sum(len(part) for part in records.values()) == 24
    assert len(logged) == 1
    assert "ignored 2 files" in logged[0]


def test_a_class_with_one_image_is_kept_and_named(tmp_path, warnings_logged):
    write_classes(tmp_path, 40, 2)
    write_image(tmp_path / "alone" / "0.png")
    write_image(tmp_path / "lonely" / "0.png")
    records = create("folder", tmp_path)
    assert sum(len(part) for part in records.values()) == 82
    assert len(warnings_logged) == 1
    assert "2 of 42 classes have a single image, e.g. alone" in warnings_logged[0]


def test_a_missing_folder(tmp_path):
    with pytest.raises(errors.DataError, match=r"nowhere: there is no such folder"):
        create("folder", tmp_path / "nowhere")


def test_no_folder():
    with pytest.raises(errors.ConfigError, match=r"--config\.data\.dir=PATH"):
        create("folder", "")


def test_an_empty_folder(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "notes.txt").touch()
    with pytest.raises(errors.DataError, match="contains no image"):
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
    (tmp_path / "class 1" / "again.png").symlink_to("again.png")
    (tmp_path / "class 1" / "through.png").symlink_to("0.png/through.png")
    records = create("folder", tmp_path)
    names = {x.describe(i): x for x in records.values() for i in range(len(x))}
    # Named where it is read, as a link to a missing file is.
    for name in ("class 1/again.png", "class 1/through.png"):
        split = names[name]
        index = [split.describe(i) for i in range(len(split))].index(name)
        with pytest.raises(OSError, match=r"Too many levels|Not a directory|No such"):
            split.read(index)


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
    with pytest.raises(errors.DataError, match=r"caf\\xe9: contains no image"):
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
    message = r"0\.png: is not in a class folder.*--config=unlabelled"
    with pytest.raises(errors.DataError, match=message):
        create("folder", tmp_path)


def test_a_link_to_a_class_counts_and_a_loop_is_left_out(tmp_path, warnings_logged):
    write_classes(tmp_path / "images", 3, 4)
    write_classes(tmp_path / "elsewhere", 1, 4)
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere" / "class 0")
    records = create("folder", tmp_path / "images")
    assert sum(len(part) for part in records.values()) == 16
    warnings_logged.clear()
    (tmp_path / "images" / "class 1" / "loop").symlink_to(tmp_path / "images")
    records = create("folder", tmp_path / "images")
    assert sum(len(part) for part in records.values()) == 16
    sentence = "left out 1 link to a folder that contains the link, e.g. class 1/loop"
    assert any(sentence in line for line in warnings_logged)


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
        assert part.level_titles == ("level 1", "class")
        for i, path in enumerate(paths_of(part)):
            found[path] = (part.label_name(i, 0), part.label_name(i, 1))
            assert splits.class_split("/".join(found[path])) == split
            assert part.read(i) == (tmp_path / path).read_bytes()
    assert found == expected


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_other_columns_of_a_manifest_are_labels(tmp_path, suffix):
    columns = manifest_columns(tmp_path)
    size = len(columns["path"])
    vendors = [("Ünï", "a, b", "c", None)[i % 4] for i in range(size)]
    further = {"vendor": vendors, "grade": [i % 3 for i in range(size)]}
    file = tmp_path / f"m{suffix}"
    write_manifest(file, {**columns, **further})
    records = create("manifest", file)
    value_of = dict(
        zip(columns["path"], zip(*further.values(), strict=True), strict=True)
    )
    found = {"vendor": set(), "grade": set()}
    for part in records.values():
        assert set(part.columns) == {"vendor", "grade"}
        for name, numbers in part.columns.items():
            assert numbers.dtype == np.int32
            assert numbers.shape == (len(part),)
            place = list(further).index(name)
            found[name] |= {
                (value_of[path][place], int(number))
                for path, number in zip(paths_of(part), numbers, strict=True)
            }
    # The same number for the same value in every split, and -1 for none.
    assert {value for value, _ in found["vendor"]} == set(vendors)
    assert {number for _, number in found["vendor"]} == {-1, *range(1, 4)}
    assert (None, -1) in found["vendor"]
    assert len(found["vendor"]) == 4
    assert found["grade"] == {(0, 0), (1, 1), (2, 2)}


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
    [("", "is empty"), ("path,level_1\n", "lists no image")],
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
