import time

from helpers.relevance_records import create_records
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from deeprank_jax import relevance

HEADER = ("id_a", "id_b", "relevance")


def write(path, rows, header=HEADER):
    if path.suffix == ".parquet":
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        lines = [",".join(map(str, row)) for row in (header, *rows)]
        path.write_text("\n".join(lines) + "\n")
    return relevance.Table(str(path))


def random_rows(size, num, seed=0):
    """Rows of `num` pairs of `r0` to `r<size - 1>`, each in one direction."""
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for i in range(size) for j in range(i)]
    chosen = rng.permutation(len(pairs))[:num]
    return [
        (f"r{a}", f"r{b}", float(rng.integers(0, 6)) / 2)
        for a, b in (rng.permutation(pairs[i]) for i in chosen)
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("num", [1, 40, 190])
def test_the_relevance_is_that_of_the_table(tmp_path, suffix, num):
    rows = random_rows(20, num)
    table = write(tmp_path / f"t{suffix}", rows)
    splits = [create_records(12), create_records(13, name="pool/test", start=12)]
    train, test = table.attributes(splits)
    assert train.dtype == np.int32
    assert train.shape == (12, 1)
    attributes = np.concatenate([train, test])
    expected = np.zeros((25, 25))
    for a, b, value in rows:
        i, j = int(a[1:]), int(b[1:])
        expected[i, j] = expected[j, i] = value
        for listed in (i, j):
            expected[listed, listed] = max(value for *_, value in rows)
    block = table.pairwise(attributes[:, None], attributes[None])
    np.testing.assert_array_equal(block, expected)
    np.testing.assert_array_equal(
        table.pairwise(attributes[:, None], np.tile(attributes, (25, 1, 1))), expected
    )


def test_total_counts_only_the_pairs_inside(tmp_path):
    table = write(tmp_path / "t.csv", random_rows(20, 120))
    (attributes,) = table.attributes([create_records(24)])
    category = np.arange(24) % 3
    block = table.pairwise(attributes[:, None], attributes[None])
    np.fill_diagonal(block, 0)
    expected = (block * (category[:, None] == category)).sum(axis=1)
    assert np.any(expected < block.sum(axis=1))
    found = relevance.total_relevance(table, attributes, category)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_pair_may_stand_twice_if_it_agrees(tmp_path):
    rows = [("r0", "r1", 0.5), ("r1", "r0", 0.5), ("r0", "r1", 0.5)]
    table = write(tmp_path / "t.csv", rows)
    (attributes,) = table.attributes([create_records(3)])
    assert table.total(attributes).tolist() == [0.5, 0.5, 0]


GOOD = [("r0", "r1", 0.5), ("r2", "r1", 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("r1", "r2", -1), r"row 3 has the relevance '-1'; it must be a finite"),
        (("r3", "r2", "nan"), "row 3 has the relevance 'nan'"),
        (("r3", "r2", "inf"), "row 3 has the relevance 'inf'"),
        (("r3", "r2", "much"), "row 3 has the relevance 'much'"),
        (("r3", "r2", ""), "row 3 has the relevance ''"),
        (("", "r2", 1), "row 3 has no id_a"),
        (("r3", "", 1), "row 3 has no id_b"),
        (("r3", "r3", 1), "row 3 pairs 'r3' with itself"),
        (("r0", "r1", 0.25), r"row 3 gives 'r0' and 'r1' .* 0\.25, row 1 0\.5"),
        (("r1", "r0", 0.25), r"row 3 gives 'r1' and 'r0' .* 0\.25, row 1 0\.5"),
    ],
)
def test_a_row_that_cannot_be(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "t.csv", [*GOOD, row, ("r8", "r9", 1)])


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, None])
def test_a_parquet_row_that_cannot_be(tmp_path, value):
    shown = r"(nan|None)" if value is None else str(value)
    with pytest.raises(ValueError, match=f"row 3 has the relevance {shown};"):
        write(tmp_path / "t.parquet", [*GOOD, ("r3", "r4", value)])


def test_the_first_of_many_bad_values(tmp_path):
    rows = [(f"r{i}", "x", "0.5" if i < 700 else f"bad {i}") for i in range(900)]
    with pytest.raises(ValueError, match="row 701 has the relevance 'bad 700'"):
        write(tmp_path / "t.csv", rows)


def test_ids_of_no_record(tmp_path):
    rows = [*GOOD, ("r1", "x.png", 1), ("z.png", "x.png", 1), ("r3", "y.png", 1)]
    table = write(tmp_path / "t.csv", rows)
    with pytest.raises(
        ValueError, match=r"no record has 3 of its 7 ids, the first 'x.png' in row 3"
    ):
        table.attributes([create_records(2), create_records(3, start=2)])


def test_a_table_without_a_column(tmp_path):
    with pytest.raises(ValueError, match=r"no column 'id_b' \(its columns are id_a, b"):
        write(tmp_path / "t.csv", GOOD, header=("id_a", "b", "relevance"))


def test_a_table_with_a_column_twice(tmp_path):
    with pytest.raises(ValueError, match="has the column 'id_a' twice"):
        write(
            tmp_path / "t.csv", [(*row, "x") for row in GOOD], header=(*HEADER, "id_a")
        )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "id_a,id_b,relevance\n", "lists no pair"),
        ("t.csv", "", "cannot be read"),
        ("t.csv", "id_a,id_b,relevance\na,b\n", "cannot be read"),
        ("t.parquet", "no such thing", "cannot be read"),
        ("t.txt", "", r"neither \.csv nor \.parquet"),
        ("", "", r"neither \.csv nor \.parquet"),
    ],
)
def test_a_file_that_is_no_table(tmp_path, name, content, message):
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        relevance.Table(str(tmp_path / name) if name else "")


def test_a_missing_table(tmp_path):
    with pytest.raises(ValueError, match=r"t\.csv' does not exist; give"):
        relevance.Table(str(tmp_path / "t.csv"))


@pytest.mark.full
def test_a_million_rows_take_seconds(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 50_000, (2, 1_000_000))
    a, b = np.minimum(a, b), np.maximum(a, b) + 1
    pairs = np.unique(np.stack([a, b]), axis=1)
    path = tmp_path / "t.csv"
    with path.open("w") as file:
        file.write("id_a,id_b,relevance\n")
        file.writelines(f"r{a},r{b},0.{a % 10}5\n" for a, b in pairs.T.tolist())
    start = time.perf_counter()
    table = relevance.Table(str(path))
    table.attributes([create_records(50_001)])
    assert time.perf_counter() - start < 30
