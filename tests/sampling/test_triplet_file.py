import csv
import dataclasses
import itertools
import re

from helpers import flipped
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from deeprank_jax import relevance
from deeprank_jax.data.records import Records
from deeprank_jax.sampling import file_sampler, image_tables, triplet_file

GRADED = relevance.Hierarchy((0.1, 1.0))
NASTY = [
    "a cat/1.png", "a cat/x, y.JPEG", "a-cat/it's-\"it\".jpg", ' lead/"quoted".png',
    "b/é ü.png", "b/日本.jpeg", "b/NULL", "b/nan", "c/two\nlines.png", "c/\rreturn",
    "c/#1.png", "c/ trailing .png ", "c/tab\t;.png", "c/-1", "c/\\xe9.png", "c/=1+1",
]  # fmt: skip


def create_records(names=NASTY, name="photos/train"):
    """Two records a class, two classes a category."""
    label = np.arange(len(names)) // 2
    return Records(
        name=name,
        labels=np.stack([label // 2, label], axis=1).astype(np.int32),
        level_names=("coarse", "fine"),
        label_names=((), ()),
        read=lambda index: b"",
        describe=names.__getitem__,
    )


RECORDS = create_records()


def random_rows(num, size, seed):
    rng = np.random.default_rng(seed)
    return np.argsort(rng.random((num, size)), axis=1)[:, :3].astype(np.int64)


def random_triplets(num=50, step=0, records=RECORDS):
    rows = random_rows(num, len(records), step)
    triplets = file_sampler.create_triplets(rows, records, GRADED, 0, step)
    values = np.sort(np.random.default_rng(step).random((num, 2)))[:, ::-1]
    return dataclasses.replace(triplets, relevance=values)


def write_csv(path, *rows, header="anchor,positive,negative"):
    lines = [header, *rows] if header else rows
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_what_was_written_is_read(tmp_path, suffix):
    batches = [random_triplets(step=step) for step in range(4)]
    path = tmp_path / "deep" / f"my triplets{suffix}"
    assert triplet_file.write_triplets(path, RECORDS, iter(batches)) == 200
    data = triplet_file.read_triplets(path, RECORDS)
    np.testing.assert_array_equal(
        data.indices, np.concatenate([batch.indices for batch in batches])
    )
    np.testing.assert_array_equal(
        data.relevance, np.concatenate([batch.relevance for batch in batches])
    )
    assert set(data.indices.ravel()) == set(range(len(NASTY)))  # All names occur.
    assert data.num_left_out == 0
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_plain_lines_are_read(tmp_path):
    path = tmp_path / "triplets.txt"
    batch = random_triplets()
    triplet_file.write_triplets(path, RECORDS, [batch])
    data = triplet_file.read_triplets(path, RECORDS)
    np.testing.assert_array_equal(data.indices, batch.indices)
    assert data.relevance is None


def test_other_programs_can_read_the_files(tmp_path):
    batch = random_triplets(step=3)
    triplet_file.write_triplets(tmp_path / "t.csv", RECORDS, [batch])
    triplet_file.write_triplets(tmp_path / "t.parquet", RECORDS, [batch])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = pa.parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [{name: str(x) for name, x in row.items()} for row in table] == rows
    names = ["anchor", "positive", "negative"]
    assert list(rows[0]) == [
        *names, "relevance_positive", "relevance_negative", "in_class", "step",
    ]  # fmt: skip
    for row, indices, inside in zip(table, batch.indices, batch.in_class, strict=True):
        assert [row[name] for name in names] == [NASTY[index] for index in indices]
        assert (row["in_class"], row["step"]) == (inside, 3)
    assert 0 < batch.in_class.sum() < 50


def test_names_without_marks_stay_as_they_are(tmp_path):
    records = create_records(["a/1.png", "a/2 2.png", "b/3-3.JPEG", "b/4.png"])
    batch = file_sampler.create_triplets(np.array([[0, 1, 2]]), records, GRADED, 0)
    triplet_file.write_triplets(tmp_path / "t.txt", records, [batch])
    assert (tmp_path / "t.txt").read_bytes() == b"a/1.png,a/2 2.png,b/3-3.JPEG\n"


@pytest.mark.parametrize("limit", [1, 49, 50, 51, 120])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_no_more_than_the_limit_is_written(tmp_path, monkeypatch, limit, suffix):
    monkeypatch.setattr(triplet_file, "_ROWS", 60)
    monkeypatch.setattr(image_tables, "_ROWS", 60)
    endless = (random_triplets(step=step) for step in itertools.count())
    path = tmp_path / f"t.{suffix}"
    assert triplet_file.write_triplets(path, RECORDS, endless, limit) == limit
    batches = [random_triplets(step=step).indices for step in range(3)]
    expected = np.concatenate(batches)[:limit]
    read = triplet_file.read_triplets(path, RECORDS).indices
    np.testing.assert_array_equal(read, expected)


def test_batches_are_written_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(triplet_file, "_ROWS", 100)
    monkeypatch.setattr(image_tables, "_ROWS", 100)
    sizes = []

    def batches():
        for step in range(5):
            sizes.extend(file.stat().st_size for file in tmp_path.iterdir())
            yield random_triplets(100, step)

    triplet_file.write_triplets(tmp_path / "t.parquet", RECORDS, batches())
    assert len(sizes) == 5
    assert sorted(sizes) == sizes
    assert len(set(sizes)) > 3  # It grew, but for what is buffered.
    assert pa.parquet.ParquetFile(tmp_path / "t.parquet").num_row_groups == 5


@pytest.mark.parametrize("suffix", ["csv", "parquet", "txt"])
def test_a_file_that_is_cut_off_is_none(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    path.write_text("old")

    def batches():
        yield random_triplets()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        triplet_file.write_triplets(path, RECORDS, batches())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"t\.csv: there is no triplet to write"):
        triplet_file.write_triplets(tmp_path / "t.csv", RECORDS, [])
    with pytest.raises(ValueError, match=r"neither \.csv, \.parquet nor \.txt"):
        triplet_file.write_triplets(tmp_path / "t.json", RECORDS, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "header", ["", "query,positive,negative", "anchor,positive,negative"]
)
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_lines_with_or_without_a_header_are_read(tmp_path, mark, end, header, suffix):
    path = tmp_path / f"t.{suffix}"
    rows = ['a cat/1.png,"a cat/x, y.JPEG",b/NULL', "", "b/nan,b/é ü.png,c/-1"]
    lines = [header, *rows] if header else rows
    path.write_bytes((mark + end.join(lines)).encode())
    data = triplet_file.read_triplets(path, RECORDS)
    np.testing.assert_array_equal(data.indices, [[0, 1, 6], [7, 4, 13]])
    assert data.relevance is None


def test_columns_may_stand_anywhere(tmp_path):
    header = "note,negative,relevance_negative,positive,relevance_positive,anchor"
    rows = ["hm,b/nan,0,c/-1, 2e0,a cat/1.png", ",b/nan,0.25,c/-1,.5,b/NULL"]
    path = write_csv(tmp_path / "t.csv", *rows, header=header)
    data = triplet_file.read_triplets(path, RECORDS)
    np.testing.assert_array_equal(data.indices, [[0, 13, 7], [6, 13, 7]])
    np.testing.assert_array_equal(data.relevance, [[2.0, 0.0], [0.5, 0.25]])


def test_parquet_of_other_programs_is_read(tmp_path):
    names = pa.array(["b/nan", "b/NULL"]).dictionary_encode()
    table = pa.table(
        {
            "anchor": names,
            "positive": pa.array(["c/-1", "c/-1"], pa.large_string()),
            "negative": ["c/=1+1", "c/=1+1"],
            "relevance_positive": pa.array([3, 2], pa.int8()),
            "relevance_negative": pa.array([1, 1.5], pa.float32()),
            "other": [[1], [2]],
        }
    )
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    data = triplet_file.read_triplets(tmp_path / "t.parquet", RECORDS)
    np.testing.assert_array_equal(data.indices, [[7, 13, 15], [6, 13, 15]])
    np.testing.assert_array_equal(data.relevance, [[3, 1], [2, 1.5]])


@pytest.mark.parametrize("block", [200, 2**24])
def test_rows_are_the_same_whatever_the_block(tmp_path, monkeypatch, block):
    monkeypatch.setattr(image_tables, "_BYTES", block)
    batch = random_triplets(500)
    triplet_file.write_triplets(tmp_path / "t.csv", RECORDS, [batch])
    data = triplet_file.read_triplets(tmp_path / "t.csv", RECORDS)
    np.testing.assert_array_equal(data.indices, batch.indices)


def test_paths_are_taken_from_three_folders(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    (photos / "lists").mkdir(parents=True)
    (photos / "manifest.csv").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    records = create_records(["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{photos}/a/1.png,./a/2.png,../b/3.png",  # Absolute, of root, of the list.
        "photos/a/1.png,photos/lists/../a/2.png,b/4.png",  # Of the working directory.
    ]
    path = write_csv(photos / "lists" / "t.csv", *rows)
    for root in (photos, "photos", photos / "manifest.csv", "~/photos"):
        data = triplet_file.read_triplets(path, records, root=root)
        np.testing.assert_array_equal(data.indices, [[0, 1, 2], [0, 1, 3]])


def test_names_come_before_paths(tmp_path):
    """The record that is named exactly so, not the one whose path it is, too."""
    records = create_records(["b.png", "./b.png", "c.png"])
    path = write_csv(tmp_path / "t.csv", "b.png,./b.png,./c.png")
    data = triplet_file.read_triplets(path, records, root=tmp_path)
    np.testing.assert_array_equal(data.indices, [[0, 1, 2]])


def test_the_first_of_a_name_is_meant(tmp_path):
    train = create_records(["x", "y", "x", "z"])
    test = create_records(["z", "y"])
    path = write_csv(tmp_path / "t.csv", "x,y,z", "./x,./y,./z")
    data = triplet_file.read_triplets(path, train, others=[test], root=tmp_path)
    np.testing.assert_array_equal(data.indices, [[0, 1, 3], [0, 1, 3]])


def test_rows_with_images_of_other_splits_are_left_out(tmp_path):
    train, test = create_records(["a", "b", "c"]), create_records(["d", "e"], "x/test")
    rows = ["a,b,c", "a,d,c", "d,e,a", "c,b,a", "a,b,e"]
    header = "anchor,positive,negative,relevance_positive,relevance_negative"
    path = write_csv(
        tmp_path / "t.csv",
        *(f"{row},{number + 1},{number}" for number, row in enumerate(rows)),
        header=header,
    )
    data = triplet_file.read_triplets(path, train, others=[test])
    np.testing.assert_array_equal(data.indices, [[0, 1, 2], [2, 1, 0]])
    np.testing.assert_array_equal(data.relevance, [[1, 0], [4, 3]])
    assert data.num_left_out == 3
    with pytest.raises(ValueError, match=r"none of its 5 triplets .* in x/test"):
        triplet_file.read_triplets(path, test, others=[train])


def test_the_fingerprint_is_that_of_the_triplets(tmp_path):
    batch = random_triplets(9)
    read = lambda name: triplet_file.read_triplets(tmp_path / name, RECORDS).fingerprint
    for name in ("t.csv", "t.parquet", "plain.txt"):
        triplet_file.write_triplets(tmp_path / name, RECORDS, [batch])
    triplet_file.write_triplets(tmp_path / "other.csv", RECORDS, [batch], 8)
    turned = dataclasses.replace(batch, indices=batch.indices[:, ::-1])
    triplet_file.write_triplets(tmp_path / "turned.csv", RECORDS, [turned])
    assert re.fullmatch(r"9-[0-9a-f]{12}", read("t.csv"))
    assert read("t.csv") == read("t.parquet")
    others = [read(name) for name in ("plain.txt", "other.csv", "turned.csv")]
    assert len({read("t.csv"), *others}) == 4


GRADES = "anchor,positive,negative,relevance_positive,relevance_negative"
GOOD = "a cat/1.png,b/NULL,c/-1"


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (None, [], "holds no triplet"),
        ("anchor,positive,negative", [], "holds no triplet"),
        ("path,level_1", ["a,b"], "its first line is 'path,level_1'"),
        ("positive,negative", ["a,b"], "has no column 'anchor' (it has 'positive', "),
        (
            "anchor,positive,negative,relevance_positive", [f"{GOOD},1"],
            "has no column 'relevance_negative'",
        ),
        (None, [GOOD, "b/x, y.png,b/NULL,c/-1"], "got 4: b/x, y.png,b/NULL,c/-1"),
        (
            "query,positive,negative", [GOOD, "b/NULL,,c/-1", "1,2,3", GOOD],
            "row 2 names '', which is not an image of the dataset (2 of 4 rows have "
            "such names); an image is named like 'a cat/1.png'",
        ),
        (
            None, [*[GOOD] * 1233, "b/NULL,b/nan,c/-1.png"],
            "row 1,234 names 'c/-1.png', which is not an image of the dataset (1 of ",
        ),
        (
            None, [GOOD, "b/NULL,b/nan,b/NULL"],
            "row 2 has an image twice ('b/NULL', 'b/nan', 'b/NULL')",
        ),
        (None, ["b/NULL,b/NULL,b/nan"], "row 1 has an image twice"),
        (None, ["b/NULL,b/nan,b/nan"], "row 1 has an image twice"),
        (
            GRADES, [f"{GOOD},1,0.5", f"{GOOD},-1,0"],
            "row 2 has the relevance_positive '-1'; it must be a finite number",
        ),
        (GRADES, [f"{GOOD},1,-0.5"], "row 1 has the relevance_negative '-0.5'"),
        (GRADES, [f"{GOOD},nan,0"], "row 1 has the relevance_positive 'nan'"),
        (GRADES, [f"{GOOD},inf,0"], "row 1 has the relevance_positive 'inf'"),
        (GRADES, [f"{GOOD},1,0", f"{GOOD},,0"], "row 2 has the relevance_positive ''"),
        (GRADES, [f"{GOOD},1,0", f"{GOOD},1,low"], "row 2 has the relevance_negative"),
        (
            GRADES, [f"{GOOD},1,0", f"{GOOD},0.5,0.5"],
            "in row 2 the positive (0.5) is not more relevant to the anchor than the "
            "negative (0.5)",
        ),
        (GRADES, [f"{GOOD},0.25,0.5"], "in row 1 the positive (0.25) is not more"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path, monkeypatch, header, rows, message):
    monkeypatch.setattr(image_tables, "_BYTES", 1000)  # Rows count through blocks.
    path = write_csv(tmp_path / "t.csv", *rows, header=header)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        triplet_file.read_triplets(path, RECORDS)
    assert str(error.value).startswith(f"{path}: ")


def test_files_of_another_kind_are_refused(tmp_path):
    read = lambda name: triplet_file.read_triplets(tmp_path / name, RECORDS)
    with pytest.raises(ValueError, match=r"none\.csv: there is no such file of"):
        read("none.csv")
    with pytest.raises(ValueError, match=r"neither \.csv, \.parquet nor \.txt"):
        read("t.json")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="there is no such file"):
        read("folder.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(ValueError, match=r"picture\.csv: cannot be read"):
        read("picture.csv")
    (tmp_path / "latin.csv").write_bytes("b/NULL,c/-1,b/\xe9.png".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.csv: cannot be read .*utf-8"):
        read("latin.csv")
    (tmp_path / "t.parquet").write_text(GOOD)
    with pytest.raises(ValueError, match=r"t\.parquet: cannot be read"):
        read("t.parquet")
    pa.parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "paths.parquet")
    with pytest.raises(ValueError, match="has no column 'anchor'"):
        read("paths.parquet")
    empty = pa.table({side: pa.array([], pa.string()) for side in GRADES.split(",")})
    pa.parquet.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="holds no triplet"):
        read("empty.parquet")
    nothing = pa.table(
        {"anchor": ["b/nan"], "positive": ["b/NULL"], "negative": [None]}
    )
    pa.parquet.write_table(nothing, tmp_path / "null.parquet")
    with pytest.raises(ValueError, match="row 1 names ''"):
        read("null.parquet")


def test_a_late_block_that_is_no_text_is_refused(tmp_path):
    lines = [GOOD.encode()] * 5000 + ["b/NULL,c/-1,b/\xe9.png".encode("latin-1")]
    (tmp_path / "t.csv").write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"cannot be read .*UTF8"):
        triplet_file.read_triplets(tmp_path / "t.csv", RECORDS)


def test_a_column_twice(tmp_path):
    path = write_csv(
        tmp_path / "t.csv",
        "b/nan,c/-1,b/NULL,c/#1.png",
        header="anchor,positive,negative,anchor",
    )
    with pytest.raises(ValueError, match="has the column 'anchor' twice"):
        triplet_file.read_triplets(path, RECORDS)


def test_a_changed_parquet_file_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    records = create_records([f"c/{i}.png" for i in range(40)])
    batches = [*file_sampler.draw_for_every_record(records, 1, 2, seed=0)]
    triplet_file.write_triplets(path, records, batches)
    expected = triplet_file.read_triplets(path, records).fingerprint

    def check(data):
        assert data.fingerprint == expected

    read = lambda: triplet_file.read_triplets(path, records)
    assert flipped.count_refused(path, read, check) > 200
