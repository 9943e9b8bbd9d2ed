"""Files of precomputed vectors, one for each record.

Convention: the id of a vector is the name that `Records.describe` returns for its
record. Only a `.npy` file has no ids but one row per record, in order. In a path
`{split}` stands for the split, e.g. `"train"`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib

import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError, needs_extra
from deeprank_jax.files.arrays import check_npy, read_npz

with needs_extra("train"):
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

_METADATA = b"deeprank"
_BLOCK = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vectors:
    """Content of a file of vectors.

    Attributes:
      ids: Names of the `M` records, without duplicates; None if row `i` is record `i`.
      values: `[M, D]` float32, finite vectors.
      metadata: JSON object stored with the vectors.
      path: Path of the file, for messages.
    """

    ids: tuple[str, ...] | None
    values: np.ndarray
    metadata: dict[str, object] = dataclasses.field(default_factory=dict)
    path: str = "vectors"


def read_vectors(path: str | os.PathLike[str]) -> Vectors:
    """Reads vectors.

    Args:
      path: Path of a `.parquet` with the columns `path` and `vector`, a `.npz` with
        the arrays `ids` and `vectors`, or a `.npy`, which is mapped into memory.

    Raises:
      DataError: The file does not exist, is of another format or cannot be read, its
        rows differ in length, an id occurs twice or a value is not finite.
    """
    file = pathlib.Path(path).expanduser()
    readers = {".parquet": _read_parquet, ".npz": _read_npz, ".npy": _read_npy}
    if file.suffix.lower() not in readers:
        raise DataError(
            f"{path}: not a file of vectors by its name; save the vectors as one of "
            f"{', '.join(readers)}."
        )
    if not file.is_file():
        raise DataError(
            f"{path}: the file of vectors does not exist; correct the path "
            "(config.relevance.file)."
        )
    try:
        files.check_file(file)
        vectors = readers[file.suffix.lower()](file)
    except (
        OSError, EOFError, KeyError, UnicodeDecodeError, pyarrow.ArrowException,
    ) as error:  # fmt: skip
        raise DataError(
            f"{path}: cannot be read ({error}); save the vectors again."
        ) from error
    _check_ids(vectors)
    _check_finite(vectors)
    return vectors


def write_vectors(
    path: str | os.PathLike[str],
    ids: Sequence[str],
    values: np.ndarray,
    metadata: Mapping[str, object],
) -> None:
    """Writes vectors as Parquet, the whole file or none.

    Args:
      path: Path that ends in `.parquet`.
      ids: Names of the `M` records.
      values: `[M, D]` float, one row per record.
      metadata: JSON object to store with the vectors.

    Raises:
      DataError: The path has another ending.
      ValueError: The number of ids is not that of the rows.
      WriteError: The file cannot be written.
    """
    file = pathlib.Path(path)
    if file.suffix.lower() != ".parquet":
        raise DataError(
            f"{path}: vectors are written as .parquet; choose a name that ends in it."
        )
    if values.ndim != 2 or len(ids) != len(values):
        raise ValueError(
            f"{path}: {len(ids):,} ids for values of shape {values.shape}; give "
            "[M, D] values and one id for each row."
        )
    values, text = np.ascontiguousarray(values, np.float32), json.dumps(dict(metadata))
    digest = _digest(ids, values, text)
    flat = pyarrow.array(values.reshape(-1))
    offsets = np.arange(len(ids) + 1) * values.shape[1]
    column = pyarrow.LargeListArray.from_arrays(offsets, flat)
    table = pyarrow.table({"path": pyarrow.array(ids, pyarrow.string())})
    table = table.append_column("vector", column).replace_schema_metadata(
        {_METADATA: text}
    )
    files.create_folder(file.parent)
    options = dict(schema=table.schema, write_page_checksum=True)
    with (
        files.replacing(file) as output,
        pyarrow.parquet.ParquetWriter(output, **options) as writer,
    ):
        writer.write_table(table)
        # Not part of the schema, which tables made from this one take over.
        writer.add_key_value_metadata({digest.KEY: digest.hexdigest()})


def _digest(
    ids: Sequence[str], values: np.ndarray, metadata: str
) -> checksums.TableDigest:
    """Returns the checksum of a file's content."""
    return checksums.TableDigest(metadata).add({"path": ids, "vector": values})


def match(vectors: Vectors, records: Records) -> np.ndarray:
    """Returns the vector of each record, `[N, D]` float32.

    Args:
      vectors: Vectors of the records, and possibly of others.
      records: Records of a split.

    Raises:
      DataError: A record has no vector, or rows without ids are more or fewer than
        the records.
    """
    size = len(records)
    if vectors.ids is None:
        if len(vectors.values) != size:
            raise DataError(
                f"{vectors.path}: has {len(vectors.values):,} rows, but {records.name} "
                f"has {size:,} records; give one row per record, in their order, in a "
                "file per split with {split} in its path, or use a .parquet with ids."
            )
        return vectors.values
    row_of = {name: row for row, name in enumerate(vectors.ids)}
    rows = np.array([row_of.get(records.describe(i), -1) for i in range(size)], int)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise DataError(
            f"{vectors.path}: has no vector for {len(missing):,} of the {size:,} "
            f"records of {records.name}, e.g. {records.describe(int(missing[0]))!r} "
            f"(an id of the file: {vectors.ids[0]!r}); add them under these names."
        )
    return vectors.values[rows]


def match_splits(path: str, splits: Sequence[Records]) -> list[np.ndarray]:
    """Returns the vectors of each split's records, `[N, D]` float32, from a file.

    Args:
      path: Path of a file for `read_vectors`; with `{split}` in it, of one per split.
      splits: Records of each split.

    Raises:
      DataError: As in `read_vectors` and `match`, or the files' vectors differ in
        length.
    """
    paths = [path.replace("{split}", split_name(records)) for records in splits]
    contents = {file: read_vectors(file) for file in dict.fromkeys(paths)}
    dims = {file: vectors.values.shape[1] for file, vectors in contents.items()}
    if len(set(dims.values())) > 1:
        lengths = ", ".join(f"{dim} in {file}" for file, dim in dims.items())
        raise DataError(
            f"The vectors of the splits differ in length ({lengths}); compute all of "
            "them by the same model."
        )
    return [
        match(contents[file], records)
        for file, records in zip(paths, splits, strict=True)
    ]


def split_name(records: Records) -> str:
    """Returns `"train"` of the records named `"emoji/train (seen classes)"`."""
    return records.name.rpartition("/")[2].split(" (")[0]


def _read_parquet(file: pathlib.Path) -> Vectors:
    schema = pyarrow.parquet.read_schema(file)
    _check_names(file, "columns", schema.names, ("path", "vector"))
    kind = schema.field("vector").type
    is_list = (
        pyarrow.types.is_list(kind)
        or pyarrow.types.is_large_list(kind)
        or pyarrow.types.is_fixed_size_list(kind)
    )
    if not is_list or not _is_number(kind.value_type):
        raise DataError(
            f"{file}: its column 'vector' is {kind}; it must be a list of floats."
        )
    table = pyarrow.parquet.read_table(
        file, columns=["path", "vector"], page_checksum_verification=True
    )
    ids = tuple(map(str, table["path"].to_pylist()))
    vectors = table["vector"].combine_chunks()
    lengths = pyarrow.compute.call_function("list_value_length", [vectors])
    lengths = lengths.fill_null(0).to_numpy(zero_copy_only=False)
    if len(lengths):
        _check_lengths(file, ids, lengths)
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    values = _check_shape(file, flat.reshape(len(ids), -1 if len(ids) else 0))
    entries = pyarrow.parquet.read_metadata(file).metadata or {}
    try:
        text = entries.get(_METADATA, b"{}").decode()
        _digest(ids, values, text).check(entries)
        metadata = json.loads(text)
    except ValueError as error:
        raise OSError(error) from error
    return Vectors(ids=ids, values=values, metadata=metadata, path=str(file))


def _read_npz(file: pathlib.Path) -> Vectors:
    try:
        arrays = read_npz(file)
    except ValueError as error:
        raise OSError(error) from error
    _check_names(file, "arrays", list(arrays), ("ids", "vectors"))
    ids, values = arrays["ids"], _check_shape(file, arrays["vectors"])
    if ids.ndim != 1 or ids.dtype.kind != "U" or len(ids) != len(values):
        raise DataError(
            f"{file}: its 'ids' are {ids.dtype} of shape {ids.shape} for "
            f"{len(values):,} vectors; save np.array(ids, str) with one id for each."
        )
    return Vectors(ids=tuple(ids.tolist()), values=values, path=str(file))


def _read_npy(file: pathlib.Path) -> Vectors:
    try:
        with files.open_file(file) as content:
            check_npy(content)
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise OSError(error) from error
    return Vectors(ids=None, values=_check_shape(file, values), path=str(file))


def _is_number(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)


def _check_names(
    file: pathlib.Path, parts: str, names: Sequence[str], needed: Sequence[str]
) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(
            f"{file}: has no {missing[0]!r} (its {parts} are "
            f"{', '.join(names) or 'none'}); it needs {' and '.join(needed)}."
        )


def _check_lengths(file: pathlib.Path, ids: Sequence[str], lengths: np.ndarray) -> None:
    other = np.flatnonzero(lengths != lengths[0])
    if len(other):
        row = int(other[0])
        raise DataError(
            f"{file}: row {row + 1:,} ({ids[row]!r}) has {lengths[row]} values, the "
            f"first ({ids[0]!r}) has {lengths[0]}; give all vectors the same length."
        )


def _check_shape(file: pathlib.Path, values: np.ndarray) -> np.ndarray:
    """Returns the values as float32; a float32 file stays mapped into memory."""
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise DataError(
            f"{file}: holds {values.dtype} values of shape {values.shape}; it needs a "
            "vector of numbers for each of at least one record, [M, D]."
        )
    return values.astype(np.float32, copy=False)


def _check_ids(vectors: Vectors) -> None:
    if vectors.ids is None or len(set(vectors.ids)) == len(vectors.ids):
        return
    twice = [name for name, count in Counter(vectors.ids).items() if count > 1]
    rows = [i for i, name in enumerate(vectors.ids) if name == twice[0]]
    raise DataError(
        f"{vectors.path}: {len(twice):,} ids occur twice, e.g. {twice[0]!r} in rows "
        f"{rows[0] + 1:,} and {rows[1] + 1:,}; keep one vector for each."
    )


def _check_finite(vectors: Vectors) -> None:
    """Checks one block of rows at a time, as the file may be larger than memory."""
    values = vectors.values
    step = max(1, _BLOCK // values.shape[1])
    for start in range(0, len(values), step):
        bad = np.argwhere(~np.isfinite(values[start : start + step]))
        if len(bad):
            row, column = int(start + bad[0][0]), int(bad[0][1])
            name = "" if vectors.ids is None else f" ({vectors.ids[row]!r})"
            raise DataError(
                f"{vectors.path}: value {column + 1} of row {row + 1:,}{name} is "
                f"{values[row, column]}; vectors must be finite."
            )
