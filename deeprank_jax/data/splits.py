"""Which record is in which split?

Convention: a hash of a name decides, so that a class (or a file) stays in its split
whatever else is added. With `b` the first byte of the SHA-256 of the name, `b < 128`
is test, `b < 152` validation, else train.
"""

from collections.abc import Callable, Sequence
import hashlib
from typing import Any
import unicodedata

from absl import logging
import numpy as np

from deeprank_jax.data import errors
from deeprank_jax.data import records as records_lib

SPLITS = ("train", "validation", "test")
_TEST_BYTES = 128
_VALIDATION_BYTES = 24
# As long as the longest name: NumPy would cut what does not fit.
_SPLIT_DTYPE = f"<U{max(map(len, SPLITS))}"
_SEEN = " (seen classes)"


def digest(name: str) -> bytes:
    """Returns the SHA-256 of a name, the same however its accents are composed."""
    normal = unicodedata.normalize("NFC", name)
    return hashlib.sha256(normal.encode("utf-8", "surrogateescape")).digest()


def class_split(name: str) -> str:
    """Returns the split of a class by the hash of its name."""
    first_byte = digest(name)[0]
    if first_byte < _TEST_BYTES:
        return "test"
    return "validation" if first_byte < _TEST_BYTES + _VALIDATION_BYTES else "train"


def split_by_class_hash(
    pool: records_lib.Records, class_names: Sequence[str]
) -> dict[str, records_lib.Records]:
    """Splits by class, or by record if there are too few classes for that.

    Args:
      pool: all records.
      class_names: for each finest label of the pool the name that is hashed.

    Returns:
      The records of each split, none empty. `name` says so where the classes of a
      split are seen in training too.

    Raises:
      DataError: there are too few records to fill three splits.
    """
    splits_of_classes = np.array([class_split(name) for name in class_names])
    assignment = splits_of_classes[pool.attributes[:, -1]]
    counts = {split: int(np.sum(splits_of_classes == split)) for split in SPLITS}
    if min(counts["train"], counts["test"]) < 2:
        logging.warning(
            "%s: %d classes are too few to keep some unseen (%d for training, %d for "
            "test); it is split by record, so that its test classes are seen in "
            "training.",
            pool.name,
            len(class_names),
            counts["train"],
            counts["test"],
        )
        return _split_by_record(pool)
    return _finish(pool, assignment)


def split_first_half(
    pool: records_lib.Records, class_names: Sequence[str]
) -> dict[str, records_lib.Records]:
    """Splits by label order, the protocol of CUB-200 and Cars-196.

    The first half of the finest classes are for training, less those whose hash has
    a first byte below 24, which are for validation; the others are for test.

    Args:
      pool: all records.
      class_names: for each finest label of the pool the name that is hashed.

    Returns:
      The records of each split, none empty.

    Raises:
      DataError: there are too few classes or records.
    """
    if len(class_names) < 4:
        raise errors.DataError(
            f"{pool.name}: {len(class_names)} classes cannot be halved into training "
            'and test; take config.data.split_by="class_hash".'
        )
    in_test = np.arange(len(class_names)) >= len(class_names) // 2
    held_out = _held_out(class_names) & ~in_test
    splits_of_classes = np.where(
        in_test, "test", np.where(held_out, "validation", "train")
    )
    return _finish(pool, splits_of_classes[pool.attributes[:, -1]])


def split_as_given(
    pool: records_lib.Records, class_names: Sequence[str], given: np.ndarray
) -> dict[str, records_lib.Records]:
    """Splits as the dataset's authors did.

    Where they set no validation apart, it is the training classes whose hash has a
    first byte below 24.

    Args:
      pool: all records.
      class_names: for each finest label of the pool the name that is hashed.
      given: `[N]` str, the split of each record.

    Returns:
      The records of each split, none empty; those of no split are left out.

    Raises:
      DataError: there is no training or test split, or too few records.
    """
    for split in ("train", "test"):
        if not np.any(given == split):
            raise errors.DataError(
                f"{pool.name}: has no split {split!r} (it has "
                f"{', '.join(np.unique(given))}); take "
                'config.data.split_by="class_hash".'
            )
    if np.any(given == "validation"):
        return _select_splits(pool, given, seen=())
    held_out = _held_out(class_names)[pool.attributes[:, -1]] & (given == "train")
    return _finish(pool, np.where(held_out, "validation", given))


def _held_out(class_names: Sequence[str]) -> np.ndarray:
    return np.array([digest(name)[0] < _VALIDATION_BYTES for name in class_names])


def _finish(
    pool: records_lib.Records, assignment: np.ndarray
) -> dict[str, records_lib.Records]:
    """Validates on training classes where fewer than two are left for validation."""
    labels = pool.attributes[:, -1]
    num_validation = len(np.unique(labels[assignment == "validation"]))
    if num_validation >= 2 and np.any(assignment == "train"):
        return _select_splits(pool, assignment, seen=())
    logging.warning(
        "%s: %d classes are too few to validate on; some records of the training "
        "classes are taken instead.",
        pool.name,
        num_validation,
    )
    in_train = np.isin(assignment, ("train", "validation"))
    chosen = _first_by_hash(pool, in_train, _VALIDATION_BYTES)
    assignment = np.where(in_train, "train", assignment).astype(_SPLIT_DTYPE)
    assignment[chosen] = "validation"
    return _select_splits(pool, assignment, seen=("validation",))


def _split_by_record(pool: records_lib.Records) -> dict[str, records_lib.Records]:
    assignment = np.full(len(pool), "train", _SPLIT_DTYPE)
    in_test = _first_by_hash(pool, assignment == "train", _TEST_BYTES)
    assignment[in_test] = "test"
    validation_end = _TEST_BYTES + _VALIDATION_BYTES
    in_validation = _first_by_hash(pool, assignment == "train", validation_end)
    assignment[in_validation] = "validation"
    return _select_splits(pool, assignment, seen=("validation", "test"))


def _first_by_hash(
    pool: records_lib.Records, among: np.ndarray, num_bytes: int
) -> np.ndarray:
    """Returns the indices whose hash is small, two at least, of those in `among`."""
    digests = {i: digest(pool.describe(i)) for i in np.flatnonzero(among).tolist()}
    ordered = sorted(digests, key=digests.__getitem__)
    num = sum(value[0] < num_bytes for value in digests.values())
    return np.array(ordered[: max(num, 2)], np.int64)


def _select_splits(
    pool: records_lib.Records, assignment: np.ndarray, *, seen: tuple[str, ...]
) -> dict[str, records_lib.Records]:
    selected = {}
    for split in SPLITS:
        indices = np.flatnonzero(assignment == split)
        if not len(indices):
            raise errors.DataError(
                f"{pool.name}: its {len(pool):,} records leave the {split} split "
                "empty; add images."
            )
        name = f"{pool.name}/{split}{_SEEN if split in seen else ''}"
        selected[split] = select(pool, indices, name)
    return selected


def select(
    pool: records_lib.Records, indices: np.ndarray, name: str
) -> records_lib.Records:
    """Returns some records of a pool, with the pool's labels.

    Args:
      pool: the records to choose from.
      indices: `[M]` ints into `pool`.
      name: the name of what is returned.
    """
    attributes = pool.attributes[indices]
    return records_lib.Records(
        name=name,
        attributes=attributes,
        level_names=pool.level_names,
        label_names=pool.label_names,
        read=_through(pool.read, indices),
        describe=_through(pool.describe, indices),
    )


def _through(fn: Callable[[int], Any], indices: np.ndarray) -> Callable[[int], Any]:
    return lambda index: fn(int(indices[index]))
