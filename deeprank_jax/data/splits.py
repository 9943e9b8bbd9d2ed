"""Which record is in which split?

Convention: a hash of a name decides, so that a class (or a file) stays in its split
whatever else is added. With `b` the first byte of the SHA-256 of the name, `b < 128`
is test, `b < 152` validation, else train. Only where that would leave a split of few
records without triplets are some of them moved.
"""

from collections.abc import Callable, Mapping, Sequence
import hashlib
from typing import Any
import unicodedata

from absl import logging
import numpy as np

from deeprank_jax import errors
from deeprank_jax.data import records as records_lib

SPLITS = ("train", "validation", "test")
_TEST_BYTES = 128
_VALIDATION_BYTES = 24
# As long as the longest name: NumPy would cut what does not fit.
_SPLIT_DTYPE = f"<U{max(map(len, SPLITS))}"
_SEEN = " (seen classes)"
# What a split needs for triplets with an anchor of either class.
_NUM_CLASSES, _NUM_IMAGES = 2, 2


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
      The records of each split, which holds two classes or more with two records or
      more: at the finest level at which that can be. `name` says so where classes of
      a split are seen in training too.

    Raises:
      DataError: there are too few records for that.
    """
    everything = np.full(len(pool), "train", _SPLIT_DTYPE)
    labels = _choose_labels(pool, everything == "train", SPLITS)
    splits_of_classes = np.array([class_split(name) for name in class_names])
    assignment = splits_of_classes[pool.labels[:, -1]]
    num_paired = {split: _num_paired(labels[assignment == split]) for split in SPLITS}
    if min(num_paired["train"], num_paired["test"]) >= _NUM_CLASSES:
        validated = _with_validation(pool, labels, assignment)
        if validated is not None:
            return _select_splits(pool, validated)
    logging.warning(
        "%s: %d classes are too few to keep some unseen (with two images or more: %d "
        "for training, %d for validation, %d for test); it is split by record, so "
        "that its test classes are seen in training.",
        pool.name,
        len(class_names),
        *num_paired.values(),
    )
    ends = {"test": _TEST_BYTES, "validation": _TEST_BYTES + _VALIDATION_BYTES}
    by_record = _take_records(pool, labels, everything, ends)
    assert by_record is not None, "the labels were chosen so that there are enough"
    return _select_splits(pool, by_record)


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
    assignment = splits_of_classes[pool.labels[:, -1]]
    return _validate(pool, assignment)


def split_as_given(
    pool: records_lib.Records, class_names: Sequence[str], given: np.ndarray
) -> dict[str, records_lib.Records]:
    """Splits as the dataset's authors did.

    Where they set only a validation apart, it is the test. Where there is no validation
    then, it is the training classes whose hash has a first byte below 24.

    Args:
      pool: all records.
      class_names: for each finest label of the pool the name that is hashed.
      given: `[N]` str, the split of each record.

    Returns:
      The records of each split, none empty; those of no split are left out.

    Raises:
      DataError: there is no training or test split, or too few records.
    """
    if not np.any(given == "test"):
        given = np.where(given == "validation", "test", given)
    for split in ("train", "test"):
        if not np.any(given == split):
            raise errors.DataError(
                f"{pool.name}: has no split {split!r} (it has "
                f"{', '.join(np.unique(given))}); take "
                'config.data.split_by="class_hash".'
            )
    given = np.where(np.isin(given, SPLITS), given, "").astype(_SPLIT_DTYPE)
    if np.any(given == "validation"):
        return _select_splits(pool, given)
    held_out = _held_out(class_names)[pool.labels[:, -1]] & (given == "train")
    return _validate(pool, np.where(held_out, "validation", given))


def _held_out(class_names: Sequence[str]) -> np.ndarray:
    return np.array([digest(name)[0] < _VALIDATION_BYTES for name in class_names])


def _num_paired(labels: np.ndarray) -> int:
    """Returns how many labels two records or more have: an anchor and a positive."""
    return int(np.sum(np.bincount(labels) >= _NUM_IMAGES))


def _choose_labels(
    pool: records_lib.Records, among: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Returns the labels of the finest level at which all splits can have triplets.

    Args:
      pool: all records.
      among: `[N]` bool, the records to split.
      names: the splits to make of them.

    Returns:
      `[N]` ints, a column of the pool's labels.

    Raises:
      DataError: there is no such level.
    """
    for labels in pool.labels.T[::-1]:
        shares = np.minimum(np.bincount(labels[among]) // _NUM_IMAGES, len(names))
        if shares.sum() >= _NUM_CLASSES * len(names):
            return labels
    num_classes = len(np.unique(pool.labels[among, -1]))
    raise errors.DataError(
        f"{pool.name}: {np.sum(among):,} images of {num_classes:,} classes are too "
        f"few: {', '.join(names[:-1])} and {names[-1]} each need two classes with two "
        f"images of their own, e.g. two classes of {_NUM_IMAGES * len(names)} images; "
        "add images."
    )


def _validate(
    pool: records_lib.Records, assignment: np.ndarray
) -> dict[str, records_lib.Records]:
    names = ("train", "validation")
    labels = _choose_labels(pool, np.isin(assignment, names), names)
    validated = _with_validation(pool, labels, assignment)
    assert validated is not None, "the labels were chosen so that there are enough"
    return _select_splits(pool, validated)


def _with_validation(
    pool: records_lib.Records, labels: np.ndarray, assignment: np.ndarray
) -> np.ndarray | None:
    """Validates on training records where the validation classes are too few.

    Args:
      pool: all records.
      labels: `[N]` ints, the class of each record.
      assignment: `[N]` str, the split of each record.

    Returns:
      `[N]` str, the split of each record; None where there are too few.
    """
    in_validation = assignment == "validation"
    num_paired = _num_paired(labels[in_validation])
    if min(num_paired, _num_paired(labels[assignment == "train"])) >= _NUM_CLASSES:
        return assignment
    rest = np.where(in_validation, "train", assignment).astype(_SPLIT_DTYPE)
    taken = _take_records(pool, labels, rest, {"validation": _VALIDATION_BYTES})
    if taken is not None:
        logging.warning(
            "%s: %d classes are too few to validate on; some records of the training "
            "classes are taken instead.",
            pool.name,
            num_paired,
        )
    return taken


def _take_records(
    pool: records_lib.Records,
    labels: np.ndarray,
    assignment: np.ndarray,
    ends: Mapping[str, int],
) -> np.ndarray | None:
    """Splits the training records by the hash of what describes them.

    Where that leaves a split without triplets, some classes give each split two of
    the records whose hashes are the nearest.

    Args:
      pool: all records.
      labels: `[N]` ints, the class of each record.
      assignment: `[N]` str, the split of each record.
      ends: for each split to fill, in rising order, what the first byte of its
        records' hashes lies below; the other records stay in training.

    Returns:
      `[N]` str, the split of each record; None where there are too few.
    """
    names = np.array([*ends, "train"], _SPLIT_DTYPE)
    indices = np.flatnonzero(assignment == "train")
    digests = {i: digest(pool.describe(i)) for i in indices.tolist()}
    ordered: dict[int, list[int]] = {}
    for index in sorted(digests, key=digests.__getitem__):
        ordered.setdefault(int(labels[index]), []).append(index)
    # Each class is cut in the order of its hashes; classes stand in that of their
    # first, which a dict keeps.
    counts = np.zeros((len(ordered), len(names)), np.int64)
    for row, members in enumerate(ordered.values()):
        first_bytes = [digests[index][0] for index in members]
        parts = np.searchsorted(list(ends.values()), first_bytes, side="right")
        counts[row] = np.bincount(parts, minlength=len(names))
    if np.any(np.sum(counts >= _NUM_IMAGES, axis=0) < _NUM_CLASSES):
        needed = _choose_classes(counts)
        if needed is None:
            return None
        counts = np.array(list(map(_raise_counts, counts, needed)))
    taken = assignment.astype(_SPLIT_DTYPE)
    for row, members in enumerate(ordered.values()):
        taken[members] = np.repeat(names, counts[row])
    return taken


def _choose_classes(counts: np.ndarray) -> np.ndarray | None:
    """Returns how many records each class must give each split, None if it cannot be.

    Args:
      counts: `[C, S]` ints, the records of each class that the hash puts into each
        split.
    """
    # A split takes the classes with the most left to give, which leaves a choice for
    # the splits after it wherever there is one (Gale and Ryser).
    left = np.minimum(counts.sum(axis=1) // _NUM_IMAGES, counts.shape[1])
    needed = np.zeros_like(counts)
    for split in range(counts.shape[1]):
        has_enough = counts[:, split] >= _NUM_IMAGES
        chosen = np.lexsort((~has_enough, -left))[:_NUM_CLASSES]
        if len(chosen) < _NUM_CLASSES or np.any(left[chosen] < 1):
            return None
        needed[chosen, split] = _NUM_IMAGES
        left[chosen] -= 1
    return needed


def _raise_counts(counts: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Returns `[S]` counts with the same sum, none below `needed`, moved the least."""
    ends, start = np.cumsum(counts), 0
    for split in range(len(counts) - 1):
        most = ends[-1] - needed[split + 1 :].sum()
        ends[split] = start = np.clip(ends[split], start + needed[split], most)
    return np.diff(ends, prepend=0)


def _select_splits(
    pool: records_lib.Records, assignment: np.ndarray
) -> dict[str, records_lib.Records]:
    """Returns each split, its name saying so where it shares classes with training."""
    labels = pool.labels[:, -1]
    trained = np.unique(labels[assignment == "train"])
    selected = {}
    for split in SPLITS:
        indices = np.flatnonzero(assignment == split)
        if not len(indices):
            raise errors.DataError(
                f"{pool.name}: its {len(pool):,} records leave the {split} split "
                "empty; add images."
            )
        seen = split != "train" and bool(np.any(np.isin(labels[indices], trained)))
        name = f"{pool.name}/{split}{_SEEN if seen else ''}"
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
    return records_lib.Records(
        name=name,
        labels=pool.labels[indices],
        level_names=pool.level_names,
        label_names=pool.label_names,
        read=_through(pool.read, indices),
        describe=_through(pool.describe, indices),
        columns={key: column[indices] for key, column in pool.columns.items()},
    )


def _through(fn: Callable[[int], Any], indices: np.ndarray) -> Callable[[int], Any]:
    return lambda index: fn(int(indices[index]))
