"""Folders and lists of images as people and programs leave them."""

import os
import unicodedata

from helpers import own_images
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from deeprank_jax.data.sources import folder, manifest
from deeprank_jax.errors import DataError
from deeprank_jax.inference.sources import open_source

CLASSES = ["robin", "wren", "owl", "crow", "kite", "rook"]


def rows(records):
    pairs = range(len(records))
    return [(records.describe(i), records.label_name(i)) for i in pairs]


def classes(splits):
    return {name for part in splits.values() for _, name in rows(part)}


def num_records(splits):
    return sum(len(part) for part in splits.values())


@pytest.fixture
def photos(tmp_path):
    """Images `CLASS/0.png` to `CLASS/3.png`."""
    for i, name in enumerate(CLASSES):
        for j in range(4):
            own_images.write_image(tmp_path / name / f"{j}.png", seed=i * 10 + j)
    return tmp_path


def write_manifest(photos, label=str, name="list.csv", column="level_1"):
    """Writes a row for each image; `label` changes its class and how it is written."""
    path = photos / name
    lines = [f"{c}/{j}.png,{label(c)}\n" for c in CLASSES for j in range(4)]
    path.write_text(f"path,{column}\n" + "".join(lines), encoding="utf-8")
    return path


def create(path):
    return manifest.create_records(str(path), split_by="image")


def test_an_unquoted_comma_is_named_with_its_line(photos):
    path = write_manifest(photos, lambda c: f"{c}, old" if c == "owl" else c)
    for read in (create, open_source):
        with pytest.raises(
            DataError, match=r"list\.csv: line 10 has 3 values for 2 col"
        ):
            read(path)
    quoted = write_manifest(photos, lambda c: f'"{c}, old"' if c == "owl" else c)
    assert "owl, old" in classes(create(quoted))


@pytest.mark.parametrize("start", [0, 1, 2])
def test_a_quote_that_is_never_closed_is_named_with_its_line(photos, start):
    path = write_manifest(photos)
    lines = path.read_text().splitlines()
    # One, two or three of them, of which the second seems to close the first.
    for line in range(5, 6 + start):
        name, label = lines[line].split(",")
        lines[line] = f'{name},"{label}'
    path.write_text("\n".join(lines) + "\n")
    for read in (create, open_source):
        with pytest.raises(DataError, match=r"list\.csv: line 6 .*quotes"):
            read(path)


def test_missing_labels_of_a_table_are_no_class(photos):
    names = [f"{c}/{j}.png" for c in CLASSES for j in range(4)]
    labels = np.array([float(i // 4) for i in range(24)])
    labels[5] = np.nan
    table = pyarrow.table({"path": names, "label": labels, "level_1": labels})
    path = photos / "list.parquet"
    pyarrow.parquet.write_table(table, path)
    assert rows(open_source(path))[5][1] == ""
    with pytest.raises(DataError, match="row 6 has no level_1"):
        create(path)


def test_blank_labels_are_missing(photos):
    path = write_manifest(photos, lambda c: "  " if c == "owl" else c)
    with pytest.raises(DataError, match="row 9 has no level_1"):
        create(path)
    assert dict(rows(open_source(path)))[str(photos / "owl/0.png")] == ""


def test_spellings_of_one_label_are_one_class(photos):
    forms = ["é", "e\u0301 ", " é", "e\u0301"]
    places = iter(forms * len(CLASSES))
    path = write_manifest(photos, lambda c: c + next(places))
    expected = {unicodedata.normalize("NFC", c + "é") for c in CLASSES}
    assert classes(create(path)) == expected | {c + " é" for c in CLASSES}
    assert {label for _, label in rows(open_source(path))} == classes(create(path))


def test_folders_in_two_unicode_forms_are_one_class(photos):
    (photos / "owl").rename(photos / "hibou é")
    (photos / "crow").rename(photos / "hibou e\u0301")
    splits = folder.create_records(str(photos), split_by="image")
    assert len(classes(splits)) == len(CLASSES) - 1
    assert num_records(splits) == 24
    for part in splits.values():
        for path, _ in rows(part):
            assert (photos / path).exists()


def test_labels_that_differ_in_case_are_warned_of(photos, warnings_logged):
    (photos / "owl").rename(photos / "Robin")
    folder.create_records(str(photos), split_by="image")
    open_source(photos)
    text = "2 labels differ in upper and lower case only, e.g. 'Robin' and 'robin'"
    assert sum(text in line for line in warnings_logged) == 2


def test_rows_that_repeat_an_image_are_used_once(photos, warnings_logged):
    path = write_manifest(photos)
    header, *lines = path.read_text().splitlines()
    repeated = [line.replace("/", "/../" + line.split("/")[0] + "//") for line in lines]
    path.write_text("\n".join([header, *lines, *repeated]) + "\n")
    assert num_records(create(path)) == 24
    assert "manifest: 24 of 48 entries repeat an image" in warnings_logged[0]


def test_an_image_in_two_classes_is_warned_of(photos, warnings_logged):
    (photos / "wren" / "9.png").symlink_to(photos / "robin" / "1.png")
    splits = folder.create_records(str(photos), split_by="image")
    assert num_records(splits) == 25
    assert "1 images are in a second class, e.g. wren/9.png" in warnings_logged[0]
    (photos / "robin" / "9.png").symlink_to(photos / "robin" / "1.png")
    assert num_records(folder.create_records(str(photos), split_by="image")) == 25


def test_a_file_counts_once_however_it_is_named(photos, warnings_logged):
    link = photos / "link.png"
    link.symlink_to(photos / "owl" / "0.png")
    (photos / "linked").symlink_to(photos / "owl")
    names = ["owl/0.png", "owl/../owl/0.png", "./owl//0.png", "link.png", "owl/1.png"]
    path = photos / "list.txt"
    path.write_text("\n".join([*names, "linked/0.png", str(photos / "owl/0.png")]))
    expected = [str(photos / name) for name in ("owl/0.png", "owl/1.png")]
    assert [name for name, _ in rows(open_source(path))] == expected
    sentence = "of 7 entries, 5 named a file again, by its path or a link; each file"
    assert sentence in warnings_logged[-1]
    sequence = [photos / name for name in names]
    assert [name for name, _ in rows(open_source(sequence))] == expected
    assert len(open_source(photos)) == 24


def test_a_file_of_two_labels_is_counted(photos, warnings_logged):
    path = photos / "list.csv"
    path.write_text("path,label\nowl/0.png,owl\nowl/0.png,bird\n")
    assert [label for _, label in rows(open_source(path))] == ["owl"]
    assert "by its path or a link (1 with another label); each" in warnings_logged[-1]


def test_folders_of_one_name_are_known_by_those_above(tmp_path):
    for name in ("birds/black/1", "cars/black/1", "cars/black/2", "cars/red/1"):
        own_images.write_image(tmp_path / f"{name}.png")
    labels = [label for _, label in rows(open_source(tmp_path))]
    assert labels == ["birds/black", "cars/black", "cars/black", "red"]


def test_a_training_manifest_has_the_labels_of_its_levels(photos):
    path = photos / "list.csv"
    path.write_text(
        "path,level_1,level_2\nowl/0.png,birds,black\nowl/1.png,cars,black\n"
        "owl/2.png,cars,red\n"
    )
    labels = [label for _, label in rows(open_source(path))]
    assert labels == ["birds/black", "cars/black", "red"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le-bom", "utf-8-sig"])
@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_lists_in_utf_16_are_read(photos, name, encoding):
    (photos / "owl").rename(photos / "hibou é")
    text = "path\nhibou é/0.png\n" if name.endswith("csv") else "hibou é/0.png\n"
    content = text.encode(encoding.removesuffix("-bom"))
    if encoding.endswith("bom"):
        content = b"\xff\xfe" + content
    (photos / name).write_bytes(content)
    assert rows(open_source(photos / name))[0][0] == str(photos / "hibou é/0.png")


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
@pytest.mark.parametrize(
    ("encoding", "words"),
    [("cp1252", "Windows-1252; .*iconv -f WINDOWS-1252"), ("utf-16-le", "UTF-16; ")],
)
def test_other_encodings_are_named(photos, name, encoding, words):
    text = "path\n" if name.endswith("csv") else ""
    (photos / name).write_bytes((text + "hibou é/0.png\n").encode(encoding))
    with pytest.raises(DataError, match=words):
        open_source(photos / name)


def test_bytes_in_the_name_of_a_file_stay(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    own_images.write_image(tmp_path / name)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    assert len(open_source(tmp_path / "list.txt").read(0)) > 0


def test_a_row_without_a_path_is_named(photos):
    (photos / "list.csv").write_text("path,label\nowl/0.png,a\n ,b\n")
    with pytest.raises(DataError, match="row 2 has no path"):
        open_source(photos / "list.csv")


def test_images_in_other_formats_are_counted(photos, warnings_logged):
    for name in ("a.heic", "b.HEIF", "c.txt"):
        (photos / "owl" / name).write_bytes(b"")
    assert len(open_source(photos)) == 24
    assert (
        "left out 2 images in a format that is not read, e.g. owl"
        in (warnings_logged[0])
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path;label\nrobin/0.png;robin,owl\n", "separated by semicolons, not by com"),
        ("image;class\nrobin/0.png;robin\n", "separated by semicolons, not by com"),
        ("path\tlabel\nrobin/0.png\trobin\n", "separated by tabs, not by commas"),
        ("path|label\nrobin/0.png|robin\n", "separated by bars, not by commas"),
        ("", "is empty; begin it with the line path,label"),
        ("\n\n", "is empty; begin it with the line path,label"),
        ("robin/0.png,robin\n", r"has no header, its first line is 'robin/0\.png,rob"),
        ("image,class\nrobin/0.png,robin\n", "has no column 'path'"),
    ],
)
def test_a_csv_that_is_no_table_is_told_apart(photos, content, words):
    path = photos / "list.csv"
    path.write_text(content)
    for read in (open_source, lambda path: manifest.create_records(str(path))):
        with pytest.raises(DataError, match=words):
            read(path)


def test_a_separator_may_be_part_of_a_column(photos):
    path = photos / "list.csv"
    path.write_text("path,label;german\nrobin/0.png,x;y\n")
    assert len(open_source(path)) == 1
