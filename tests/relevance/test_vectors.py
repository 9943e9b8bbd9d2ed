import os
import tracemalloc

from helpers import flipped
from helpers.relevance_records import create_records
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from deeprank_jax import relevance
from deeprank_jax.relevance import embedding, vectors

SUFFIXES = (".parquet", ".npz", ".npy")


def random_values(size=6, dim=4, seed=0):
    return np.random.default_rng(seed).standard_normal((size, dim)).astype(np.float32)


def write(path, ids, values):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, ids=np.array(ids, str), vectors=values)
    else:
        vectors.write_vectors(path, ids, values, {"of": "tests"})


def names(size):
    return [f"r{i}" for i in range(size)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(tmp_path, suffix):
    values = random_values()
    write(tmp_path / f"v{suffix}", names(6), values)
    found = vectors.read_vectors(tmp_path / f"v{suffix}")
    np.testing.assert_array_equal(found.values, values)
    assert found.values.dtype == np.float32
    assert found.ids == (None if suffix == ".npy" else tuple(names(6)))
    assert found.metadata == ({"of": "tests"} if suffix == ".parquet" else {})
    assert isinstance(found.values, np.memmap) == (suffix == ".npy")
    assert os.listdir(tmp_path) == [f"v{suffix}"]


@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_every_list_of_parquet(tmp_path, kind):
    value = pyarrow.float64()
    types = {
        "list": pyarrow.list_(value),
        "large": pyarrow.large_list(value),
        "fixed": pyarrow.list_(value, 2),
    }
    column = pyarrow.array([[1, 2], [3, 4]], types[kind])
    table = pyarrow.table({"path": ["a", "b"], "vector": column, "more": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "v.parquet", row_group_size=1)
    found = vectors.read_vectors(tmp_path / "v.parquet")
    assert found.values.tolist() == [[1, 2], [3, 4]]
    assert found.ids == ("a", "b")


def test_a_file_that_is_cut_off_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "v.parquet"
    write(path, names(6), random_values())
    before = path.read_bytes()

    def fail(self, table):
        raise OSError("disk full")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, names(6), random_values(seed=1))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["v.parquet"]


def test_vectors_are_matched_by_name(tmp_path):
    values = random_values(12)
    order = np.random.default_rng(1).permutation(12)
    path = tmp_path / "v.parquet"
    write(path, [f"r{i}" for i in order], values[order])
    splits = [create_records(5), create_records(4, name="pool/test", start=6)]
    train, test = vectors.match_splits(str(path), splits)
    np.testing.assert_array_equal(train, values[:5])
    np.testing.assert_array_equal(test, values[6:10])


def test_a_file_for_each_split(tmp_path):
    named = ("pool/train", "pool/test (seen classes)")
    splits = [create_records(5 + i, name=name) for i, name in enumerate(named)]
    expected = [random_values(5), random_values(6, seed=1)]
    np.save(tmp_path / "train.npy", expected[0])
    np.save(tmp_path / "test.npy", expected[1])
    found = vectors.match_splits(str(tmp_path / "{split}.npy"), splits)
    for actual, values in zip(found, expected, strict=True):
        np.testing.assert_array_equal(actual, values)
    np.save(tmp_path / "test.npy", random_values(6, dim=3))
    with pytest.raises(ValueError, match=r"differ in length \(4 in .*, 3 in "):
        vectors.match_splits(str(tmp_path / "{split}.npy"), splits)


def test_a_file_of_another_length(tmp_path):
    np.save(tmp_path / "v.npy", random_values(6))
    found = vectors.read_vectors(tmp_path / "v.npy")
    with pytest.raises(ValueError, match=r"has 6 rows, but pool/train has 7 records"):
        vectors.match(found, create_records(7))


def test_records_without_a_vector(tmp_path):
    write(tmp_path / "v.parquet", names(6), random_values())
    found = vectors.read_vectors(tmp_path / "v.parquet")
    with pytest.raises(
        ValueError, match=r"for 2 of the 8 records of pool/train, e\.g\. 'r6'"
    ):
        vectors.match(found, create_records(8))


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"v\.npy: the file of vectors does not"):
        vectors.read_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize("name", ["v.csv", "v", ""])
def test_a_file_of_another_kind(tmp_path, name):
    with pytest.raises(ValueError, match=r"as one of \.parquet, \.npz, \.npy"):
        vectors.read_vectors(f"{tmp_path}/{name}" if name else name)
    with pytest.raises(ValueError, match=r"written as \.parquet"):
        vectors.write_vectors(f"{tmp_path}/{name}", names(6), random_values(), {})


@pytest.mark.parametrize("content", [b"", b"no such thing"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_unreadable_file(tmp_path, suffix, content):
    (tmp_path / f"v{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        vectors.read_vectors(tmp_path / f"v{suffix}")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_vector_that_is_not_finite(tmp_path, suffix, bad, monkeypatch):
    monkeypatch.setattr(vectors, "_BLOCK", 8)  # Two rows.
    values = random_values()
    values[4, 2] = bad
    write(tmp_path / f"v{suffix}", names(6), values)
    named = "" if suffix == ".npy" else r" \('r4'\)"
    with pytest.raises(ValueError, match=f"value 3 of row 5{named} is {bad}"):
        vectors.read_vectors(tmp_path / f"v{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES[:2])
def test_an_id_that_occurs_twice(tmp_path, suffix):
    write(tmp_path / f"v{suffix}", ["a", "b", "c", "b", "d", "d"], random_values())
    with pytest.raises(ValueError, match=r"2 ids .* e\.g\. 'b' in rows 2 and 4"):
        vectors.read_vectors(tmp_path / f"v{suffix}")


@pytest.mark.parametrize("second", [[3.0], None])
def test_rows_of_unequal_length(tmp_path, second):
    table = pyarrow.table({"path": ["a", "b"], "vector": [[1.0, 2.0], second]})
    pyarrow.parquet.write_table(table, tmp_path / "v.parquet")
    length = len(second or ())
    with pytest.raises(ValueError, match=rf"row 2 \('b'\) has {length} values, the fi"):
        vectors.read_vectors(tmp_path / "v.parquet")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"vector": [[1.0]]}, "has no 'path'"),
        ({"path": ["a"]}, "has no 'vector'"),
        ({"path": ["a"], "vector": [1.0]}, "'vector' is double; it must be a list"),
        ({"path": ["a"], "vector": [["x"]]}, "it must be a list of floats"),
    ],
)
def test_other_columns(tmp_path, columns, message):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "v.parquet")
    with pytest.raises(ValueError, match=message):
        vectors.read_vectors(tmp_path / "v.parquet")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"vectors": np.ones((2, 2))}, "has no 'ids'"),
        ({"ids": np.array(["a"]), "vectors": np.ones((2, 2))}, "one id for each"),
        ({"ids": np.arange(2), "vectors": np.ones((2, 2))}, "one id for each"),
        ({"ids": np.array(["a"], object), "vectors": np.ones((1, 2))}, "Python obj"),
        ({"ids": np.array(["a"]), "vectors": np.ones(1)}, r"float64 .* \(1,\)"),
    ],
)
def test_other_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        vectors.read_vectors(tmp_path / "v.npz")


@pytest.mark.parametrize("values", [np.ones((0, 3)), np.ones(3), np.array([["a"]])])
def test_values_that_are_no_vectors(tmp_path, values):
    np.save(tmp_path / "v.npy", values)
    with pytest.raises(ValueError, match="it needs a vector of numbers for each"):
        vectors.read_vectors(tmp_path / "v.npy")


KERNELS = {
    "exponential": lambda d, cos, scale: np.exp(-d / scale),
    "linear": lambda d, cos, scale: np.maximum(0, 1 - d / scale),
    "cosine": lambda d, cos, scale: np.maximum(0, cos),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_kernels_are_their_definitions(tmp_path, kernel, scale):
    values = random_values(20)
    write(tmp_path / "v.parquet", names(20), values)
    unit = None if kernel == "cosine" else scale
    kind = relevance.Embedding(str(tmp_path / "v.parquet"), kernel, unit)
    (attributes,) = kind.attributes([create_records(20)])
    block = kind.pairwise(attributes[:, None], attributes[None])
    x = values.astype(np.float64)
    distances = np.sum((x[:, None] - x) ** 2, axis=-1)
    norms = np.linalg.norm(x, axis=1)
    expected = KERNELS[kernel](distances, x @ x.T / norms / norms[:, None], scale)
    assert block.dtype == np.float32
    np.testing.assert_allclose(block, expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("far", [0.0, 30.0, 1e3])
def test_a_product_keeps_small_distances(size, far):
    rng = np.random.default_rng(0)
    # Clusters far from one another and from 0, each with points very near and equal.
    centers = far * rng.standard_normal((5, 16))
    x = centers[rng.integers(0, 5, size)] + 0.01 * rng.standard_normal((size, 16))
    x = np.concatenate([x, x[:20]]).astype(np.float32)
    found = embedding.squared_distances(x[:, None], x[None])
    wide = x.astype(np.float64)
    expected = np.sum((wide[:, None] - wide) ** 2, axis=-1)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert (found[expected == 0] == 0).all()
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=1e-9)


def test_a_product_is_written_in_parts(monkeypatch):
    monkeypatch.setattr(embedding, "_PAIRS", 7)
    x = 100.0 + 1e-3 * random_values(30, 16)
    x[0] = -100.0
    found = embedding.squared_distances(x[:, None], x[None])
    expected = np.sum((x[:, None] - x) ** 2, axis=-1, dtype=np.float64)
    assert (expected[1:, 1:] < 1e-3).all()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_a_vector_without_a_direction(tmp_path):
    values = random_values()
    values[3] = 0
    write(tmp_path / "v.parquet", names(6), values)
    kind = relevance.Embedding(str(tmp_path / "v.parquet"), "cosine")
    with pytest.raises(ValueError, match="the vector of 'r3' is 0"):
        kind.attributes([create_records(6)])


def test_options_that_cannot_be():
    with pytest.raises(
        ValueError, match=r"^kernel must be one of exponential, linear, cosine"
    ):
        relevance.Embedding("v.npy", "gauss")
    for scale in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"^scale must be above 0 and finite"):
            relevance.Embedding("v.npy", scale=scale)


def test_a_block_of_the_sampler_fits_into_the_caches():
    # Memory for all pairs, none for all pairs times the vectors' length.
    a, b = random_values(64, 257), random_values(1024, 257)
    kind = relevance.WithinCategory(relevance.Embedding("v.npy"), 0)
    a[:, 0] = b[:, 0] = 1.0
    tracemalloc.start()
    kind.pairwise(a[:, None], b[None])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 64 * 1024 * 4


@pytest.mark.parametrize("content", ["cut off", "an array"])
def test_an_npz_that_is_none(content, tmp_path):
    path = tmp_path / "v.npz"
    if content == "an array":
        with path.open("wb") as file:
            np.save(file, np.zeros((2, 2)))
    else:
        np.savez(path, ids=np.array(["a"]), vectors=np.zeros((1, 2)))
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"v\.npz: cannot be read"):
        vectors.read_vectors(path)


def test_no_flipped_bit_of_written_vectors_changes_them(tmp_path):
    path = tmp_path / "v.parquet"
    ids, values = [f"r{i}" for i in range(20)], np.arange(60.0).reshape(20, 3)
    vectors.write_vectors(path, ids, values, {"seed": 3})

    def check(read):
        assert (list(read.ids), read.metadata) == (ids, {"seed": 3})
        np.testing.assert_array_equal(read.values, values)

    read = lambda: vectors.read_vectors(path)
    assert flipped.count_refused(path, read, check) > 200


def test_a_table_that_was_made_from_written_vectors_is_read(tmp_path):
    """It takes over the metadata of the schema."""
    path, part = tmp_path / "v.parquet", tmp_path / "part.parquet"
    ids, values = [f"r{i}" for i in range(20)], np.arange(60.0).reshape(20, 3)
    vectors.write_vectors(path, ids, values, {"seed": 3})
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.slice(5, 2), part)
    read = vectors.read_vectors(part)
    assert (list(read.ids), read.metadata) == (["r5", "r6"], {"seed": 3})
    np.testing.assert_array_equal(read.values, values[5:7])
