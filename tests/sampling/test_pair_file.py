"""Files of pairs: images, both formats, splits, and rows that are refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.sampling import image_tables, pair_file


def create_records(names, name="photos/train"):
    return Records(
        name=name,
        labels=np.zeros((len(names), 1), np.int32),
        level_names=("class",),
        label_names=(("any",),),
        read=lambda index: b"",
        describe=names.__getitem__,
    )


TRAIN = create_records([f"c/{i}.png" for i in range(6)])
TEST = create_records([f"t/{i}.png" for i in range(3)], "photos/test")
ROWS = [("c/0.png", "c/3.png", "1"), ("c/5.png", "c/1.png", "0")]


def write(path, rows, header="a,b,similar"):
    path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    return path


def read(path, **options):
    return pair_file.read_pairs(path, TRAIN, **{"others": [TEST], **options})


def test_pairs_are_read_from_csv(tmp_path):
    pairs = read(write(tmp_path / "p.csv", ROWS))
    np.testing.assert_array_equal(pairs.indices, [[0, 3], [5, 1]])
    np.testing.assert_array_equal(pairs.is_similar, [True, False])
    assert pairs.num_left_out == 0
    assert pairs.describe() == "2 pairs, 1 similar"


@pytest.mark.parametrize(
    "values",
    [[True, False], [1, 0], [1.0, 0.0], ["true", "false"], ["TRUE", " 0"]],
    ids=str,
)
def test_columns_of_parquet_may_be_of_any_type_and_order(tmp_path, values):
    a, b = [row[0] for row in ROWS], [row[1] for row in ROWS]
    table = pa.table({"similar": values, "b": b, "note": ["", "x"], "a": a})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    pairs = read(tmp_path / "p.parquet")
    expected = read(write(tmp_path / "p.csv", ROWS))
    assert pairs.fingerprint == expected.fingerprint


def test_the_fingerprint_tells_kinds_and_images(tmp_path):
    rows = [
        ROWS,
        [ROWS[0], (*ROWS[1][:2], "1")],
        [ROWS[0], ("c/5.png", "c/2.png", "0")],
    ]
    prints = {read(write(tmp_path / "p.csv", x)).fingerprint for x in rows}
    assert len(prints) == 3


def test_images_are_found_by_their_paths(tmp_path):
    rows = [(str(tmp_path / "c" / "0.png"), "../c/3.png", "1"), ROWS[1]]
    (tmp_path / "photos").mkdir()
    path = write(tmp_path / "photos" / "p.csv", rows)
    with pytest.raises(DataError, match=r"row 1 names .*0\.png"):
        read(path)
    np.testing.assert_array_equal(read(path, root=tmp_path).indices, [[0, 3], [5, 1]])


def test_a_pair_of_two_splits_is_left_out_and_counted(tmp_path):
    rows = [*ROWS, ("t/0.png", "t/1.png", "1"), ("c/0.png", "t/1.png", "0")]
    path = write(tmp_path / "p.csv", rows)
    pairs = read(path)
    np.testing.assert_array_equal(pairs.indices, [[0, 3], [5, 1]])
    assert pairs.num_left_out == 2
    assert "2 others have an image of another split" in pairs.describe()
    of_test = pair_file.read_pairs(path, TEST, others=[TRAIN])
    np.testing.assert_array_equal(of_test.indices, [[0, 1]])
    # Where the other splits are not known, their images are those that are unknown.
    alone = pair_file.read_pairs(path, TEST)
    assert alone.fingerprint == of_test.fingerprint
    assert alone.num_left_out == of_test.num_left_out == 3
    assert (alone.num_unknown, of_test.num_unknown) == (3, 0)
    assert alone.describe().endswith(
        "similar; 3 name an image that is not in this split"
    )


def test_a_pair_that_is_listed_twice_counts_once(tmp_path):
    rows = [*ROWS, ("c/3.png", "c/0.png", "true"), ROWS[0]]
    pairs = read(write(tmp_path / "p.csv", rows))
    assert pairs.fingerprint == read(write(tmp_path / "q.csv", ROWS)).fingerprint


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*ROWS, ("c/3.png", "c/0.png", "0")],
            r"row 1 says that 'c/0\.png' and 'c/3\.png' are similar, and row 3 that "
            "they are different; remove one",
        ),
        (
            [*ROWS, ("c/5.png", "c/1.png", "1")],
            r"row 2 says that 'c/5\.png' and 'c/1\.png' are different, and row 3 that "
            "they are similar; remove one",
        ),
        (
            [*ROWS, ("t/1.png", "c/0.png", "0"), ("c/0.png", "t/1.png", "1")],
            r"row 3 says that 't/1\.png' and 'c/0\.png' are different, and row 4",
        ),
        (
            [*ROWS, ("c/2.png", "c/2.png", "1")],
            r"row 3 pairs 'c/2\.png' with itself; remove it",
        ),
        (
            [*ROWS, ("c/2.png", "c/9.png", "1"), ("x", "c/0.png", "1")],
            r"row 3 names 'c/9\.png', which is not an image of the dataset \(2 of 4 "
            r"rows .* named like 'c/0\.png', or by its path",
        ),
        (
            [*ROWS, ("c/2.png", "c/4.png", "2")],
            "row 3 has the value '2' of similar; write 1 for a similar pair and 0",
        ),
        ([("c/2.png", "c/4.png", "")], "row 1 has the value '' of similar"),
        ([], r"holds no pair; it needs the columns a,b,similar and rows"),
    ],
)
@pytest.mark.parametrize("block", [2**24, 24])
def test_rows_that_cannot_be_are_named(tmp_path, monkeypatch, rows, message, block):
    monkeypatch.setattr(image_tables, "_BYTES", block)  # Rows count through blocks.
    path = write(tmp_path / "p.csv", rows)
    with pytest.raises(DataError, match=rf"p\.csv: {message}"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "a,b,same\n", r"no column 'similar' \(its first line is 'a,b,same'"),
        ("p.csv", "c/0.png,c/1.png,1\n", r"no column 'a' .*c/0\.png.* needs .*a,b,sim"),
        ("p.csv", "a,b,similar,a\n", "has the column 'a' twice; remove one"),
        ("p.csv", "", r"holds no pair; it needs the columns a,b,similar"),
        (
            "p.csv",
            "a,b,similar\nc/0.png,c/1.png\n",
            "cannot be read .*needs the columns",
        ),
        ("p.parquet", "PAR1", "cannot be read .* needs the columns a,b,similar"),
        ("p.txt", "a,b,similar\n", r"neither \.csv nor \.parquet; save the pairs"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_a_parquet_file_without_a_column_is_refused(tmp_path):
    table = pa.table({"a": ["c/0.png"], "b": ["c/1.png"]})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"no column 'similar' \(it has 'a', 'b'\)"):
        read(tmp_path / "p.parquet")


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such file of pairs.*`deeprank pairs`"):
        read(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("t/0.png", "c/1.png", "1")], "none of its 1 pairs has both .* photos/train"),
        ([ROWS[0]], "all 1 pairs of photos/train are similar; add some that are diff"),
        ([ROWS[1]], "all 1 pairs of photos/train are different; add some .* similar"),
    ],
)
def test_both_kinds_are_needed(tmp_path, rows, message):
    pairs = read(write(tmp_path / "p.csv", rows))
    with pytest.raises(DataError, match=message):
        pairs.check_kinds(TRAIN.name)
    read(write(tmp_path / "p.csv", ROWS)).check_kinds(TRAIN.name)


def test_written_pairs_are_read_again(tmp_path):
    names = ["plain.png", "a,comma.png", 'a "quote".png', "a\rreturn.png", "ü\n.png"]
    records = create_records(names)
    indices = np.array([[0, 1], [2, 3], [4, 0]])
    is_similar = np.array([True, False, True])
    path, other = tmp_path / "folder" / "p.csv", np.array([[0, 1]])
    pair_file.write_pairs(
        path, [records, TEST], [indices, other], [is_similar, np.array([False])]
    )
    pairs = pair_file.read_pairs(path, records, others=[TEST])
    np.testing.assert_array_equal(pairs.indices, indices)
    np.testing.assert_array_equal(pairs.is_similar, is_similar)
    assert pairs.num_left_out == 1
