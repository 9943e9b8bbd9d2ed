"""Splits of records into training, validation and test.

Convention: a hash of its name decides, so that a class (or a file) stays in its split
when others are added. With `b` the first byte of the SHA-256 of the name, `b < 128` is
test, `b < 152` validation, and the rest training, unless other shares are given.
Records are moved only where a small split would otherwise have no triplets.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
from typing import TypeVar
import unicodedata

from absl import logging
import numpy as np

from deeprank_jax import errors, logs
from deeprank_jax.data.records import Records

T = TypeVar("T")

SPLITS = ("train", "validation", "test")
_TEST_BYTES = 128
_VALIDATION_BYTES = 24
_NUM_BYTES = 256
# As long as the longest name: NumPy would cut longer ones.
_SPLIT_DTYPE = f"<U{max(map(len, SPLITS))}"
_SEEN_CLASSES = " (seen classes)"
# Needed in a split for triplets with an anchor of either class.
_NUM_CLASSES, _NUM_IMAGES = 2, 2


@dataclasses.dataclass(frozen=True)
class Shares:
    """Shares of the classes, or images, that are kept from training.

    Attributes:
      test_share: Share of test, at least 0; without a test split a run is measured on
        validation alone.
      validation_share: Share of validation, above 0; it selects the checkpoint.
    """

    test_share: float = _TEST_BYTES / _NUM_BYTES
    validation_share: float = _VALIDATION_BYTES / _NUM_BYTES

    def __post_init__(self):
        """Checks the shares.

        Raises:
          ValueError: One is out of its range, or nothing is left for training.
        """
        if not 0 <= self.test_share < 1:
            raise ValueError(
                f"test_share must be at least 0 and below 1, got {self.test_share}."
            )
        if not 0 < self.validation_share < 1:
            raise ValueError(
                "validation_share must be above 0 and below 1, got "
                f"{self.validation_share}: the checkpoint is selected on validation."
            )
        if self.test_share + self.validation_share > 1 - 1 / _NUM_BYTES:
            raise ValueError(
                f"test_share {self.test_share} and validation_share "
                f"{self.validation_share} leave nothing for training."
            )

    @property
    def ends(self) -> dict[str, int]:
        """Upper bound of a hash's first byte in each split but training, rising."""
        test = round(self.test_share * _NUM_BYTES)
        validation = max(1, round(self.validation_share * _NUM_BYTES))
        ends = {"test": test} if test else {}
        return ends | {"validation": test + validation}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(name for name in SPLITS if name == "train" or name in self.ends)


DEFAULT_SHARES = Shares()


def digest(name: str) -> bytes:
    """Returns the SHA-256 of a name; Unicode spellings of one accent are equal."""
    normal = unicodedata.normalize("NFC", name)
    return hashlib.sha256(normal.encode("utf-8", "surrogateescape")).digest()


def class_split(name: str, shares: Shares = DEFAULT_SHARES) -> str:
    """Returns the split of a class by the hash of its name."""
    first_byte = digest(name)[0]
    ends = shares.ends.items()
    return next((split for split, end in ends if first_byte < end), "train")


def split_by_class_hash(
    pool: Records, class_names: Sequence[str], shares: Shares = DEFAULT_SHARES
) -> dict[str, Records]:
    """Splits by class, or by record if there are too few classes.

    Args:
      pool: Records of all splits.
      class_names: Name of each finest label of the pool, which is hashed.
      shares: Shares of validation and test.

    Returns:
      The records of each split. Each has at least two classes with at least two
      records, at the finest level at which this is possible. The name of a split
      says so if it shares classes with training.

    Raises:
      DataError: There are too few records.
    """
    labels = _choose_labels(pool, np.ones(len(pool), bool), shares.splits)
    splits_of_classes = np.array([class_split(name, shares) for name in class_names])
    assignment = splits_of_classes[pool.labels[:, -1]]
    num_paired = {
        split: _num_paired(labels[assignment == split]) for split in shares.splits
    }
    fewest = min(x for split, x in num_paired.items() if split != "validation")
    if fewest >= _NUM_CLASSES:
        validated = _with_validation(pool, labels, assignment, shares)
        if validated is not None:
            return _select_splits(pool, validated)
    logging.warning(
        "%s: %d classes are too few for splits without common classes (with two "
        "images or more: %s); it is split by record, so the classes of all splits are "
        "seen in training.",
        pool.name,
        len(class_names),
        ", ".join(f"{x} for {name}" for name, x in _in_words(num_paired).items()),
    )
    return split_by_record_hash(pool, shares)


def split_by_record_hash(
    pool: Records, shares: Shares = DEFAULT_SHARES
) -> dict[str, Records]:
    """Splits by record, so that all splits have the same classes.

    Args:
      pool: Records of all splits.
      shares: Shares of validation and test.

    Returns:
      The records of each split, as `split_by_class_hash`; their names say that they
      share classes.

    Raises:
      DataError: There are too few records.
    """
    everything = np.full(len(pool), "train", _SPLIT_DTYPE)
    labels = _choose_labels(pool, everything == "train", shares.splits)
    by_record = _split_records(pool, labels, everything, shares.ends)
    assert by_record is not None, "the labels were chosen so that there are enough"
    return _select_splits(pool, by_record)


def _in_words(counts: Mapping[str, int]) -> dict[str, int]:
    return {name.replace("train", "training"): x for name, x in counts.items()}


def split_first_half(pool: Records, class_names: Sequence[str]) -> dict[str, Records]:
    """Splits by label order, the protocol of CUB-200 and Cars-196.

    The first half of the finest classes is for training, except those whose hash
    begins with a byte below 24, which are for validation; the others are for test.

    Args:
      pool: Records of all splits.
      class_names: Name of each finest label of the pool, which is hashed.

    Returns:
      The records of each split, none empty.

    Raises:
      DataError: There are too few records.
      ValueError: There are too few classes.
    """
    if len(class_names) < 4:
        raise ValueError(
            f"split_by='first_half' needs at least four classes, {pool.name} has "
            f"{len(class_names)}; use 'class_hash'."
        )
    in_test = np.arange(len(class_names)) >= len(class_names) // 2
    held_out = _held_out(class_names) & ~in_test
    splits_of_classes = np.where(
        in_test, "test", np.where(held_out, "validation", "train")
    )
    assignment = splits_of_classes[pool.labels[:, -1]]
    return _validate(pool, assignment)


def split_as_stored(
    pool: Records, class_names: Sequence[str], stored_splits: np.ndarray
) -> dict[str, Records]:
    """Uses the dataset's own splits.

    Without a test split, the validation split becomes test. Without a validation split,
    the training classes whose hash begins with a byte below 24 become validation.

    Args:
      pool: Records of all splits.
      class_names: Name of each finest label of the pool, which is hashed.
      stored_splits: `[N]` str, split of each record in the dataset.

    Returns:
      The records of each split, none empty; records of other splits are left out.

    Raises:
      DataError: There are too few records.
      ValueError: There is no training or test split.
    """
    names = stored_splits
    if not np.any(names == "test"):
        names = np.where(names == "validation", "test", names)
    for split in ("train", "test"):
        if not np.any(names == split):
            raise ValueError(
                f"split_by='dataset' needs the splits train and test, {pool.name} has "
                f"{', '.join(np.unique(stored_splits))}; use 'class_hash'."
            )
    assignment = np.where(np.isin(names, SPLITS), names, "").astype(_SPLIT_DTYPE)
    if np.any(assignment == "validation"):
        return _select_splits(pool, assignment)
    held_out = _held_out(class_names)[pool.labels[:, -1]] & (assignment == "train")
    return _validate(pool, np.where(held_out, "validation", assignment))


def _held_out(class_names: Sequence[str]) -> np.ndarray:
    return np.array([digest(name)[0] < _VALIDATION_BYTES for name in class_names])


def _num_paired(labels: np.ndarray) -> int:
    """Returns the number of labels with at least two records."""
    return int(np.sum(np.bincount(labels) >= _NUM_IMAGES))


def _choose_labels(
    pool: Records, among: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Returns the finest labels with which all splits can have triplets.

    Args:
      pool: Records of all splits.
      among: `[N]` bool, records to split.
      names: Names of the splits.

    Returns:
      `[N]` ints, a column of the pool's labels.

    Raises:
      DataError: There is no such level.
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


def _validate(pool: Records, assignment: np.ndarray) -> dict[str, Records]:
    names = ("train", "validation")
    labels = _choose_labels(pool, np.isin(assignment, names), names)
    validated = _with_validation(pool, labels, assignment)
    assert validated is not None, "the labels were chosen so that there are enough"
    return _select_splits(pool, validated)


def _with_validation(
    pool: Records,
    labels: np.ndarray,
    assignment: np.ndarray,
    shares: Shares = DEFAULT_SHARES,
) -> np.ndarray | None:
    """Moves training records to validation if its classes are too few.

    Args:
      pool: Records of all splits.
      labels: `[N]` ints, class of each record.
      assignment: `[N]` str, split of each record.
      shares: Shares of validation and test.

    Returns:
      `[N]` str, the split of each record; None if there are too few records.
    """
    in_validation = assignment == "validation"
    num_paired = _num_paired(labels[in_validation])
    if min(num_paired, _num_paired(labels[assignment == "train"])) >= _NUM_CLASSES:
        return assignment
    rest = np.where(in_validation, "train", assignment).astype(_SPLIT_DTYPE)
    ends = dataclasses.replace(shares, test_share=0.0).ends
    validated = _split_records(pool, labels, rest, ends)
    if validated is not None:
        logging.warning(
            "%s: %s too few for validation; some records of the training classes are "
            "used instead.",
            pool.name,
            f"{logs.counted(num_paired, 'class', 'classes')} "
            f"{'is' if num_paired == 1 else 'are'}",
        )
    return validated


def _split_records(
    pool: Records,
    labels: np.ndarray,
    assignment: np.ndarray,
    ends: Mapping[str, int],
) -> np.ndarray | None:
    """Splits the training records by the hash of their descriptions.

    Where a split would have no triplets, some classes give it the two records whose
    hashes are nearest.

    Args:
      pool: Records of all splits.
      labels: `[N]` ints, class of each record.
      assignment: `[N]` str, split of each record.
      ends: Upper bound of the first byte of the hashes in each split to fill, in
        rising order; the other records stay in training.

    Returns:
      `[N]` str, the split of each record; None if there are too few records.
    """
    names = np.array([*ends, "train"], _SPLIT_DTYPE)
    indices = np.flatnonzero(assignment == "train")
    digests = {i: digest(pool.describe(i)) for i in indices.tolist()}
    ordered: dict[int, list[int]] = {}
    for index in sorted(digests, key=digests.__getitem__):
        ordered.setdefault(int(labels[index]), []).append(index)
    # Each class is divided in the order of its hashes; classes come in the order of
    # their first hash, which a dict keeps.
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
    new_assignment = assignment.astype(_SPLIT_DTYPE)
    for row, members in enumerate(ordered.values()):
        new_assignment[members] = np.repeat(names, counts[row])
    return new_assignment


def _choose_classes(counts: np.ndarray) -> np.ndarray | None:
    """Chooses the classes that provide each split's triplets.

    Args:
      counts: `[C, S]` ints, number of records that the hash puts into each split, per
        class.

    Returns:
      `[C, S]` ints, the least number of records per class and split; None if there
      are too few.
    """
    # Each split uses the classes with the most records to spare, which finds a choice
    # for all splits whenever there is one (Gale and Ryser).
    spare = np.minimum(counts.sum(axis=1) // _NUM_IMAGES, counts.shape[1])
    needed = np.zeros_like(counts)
    for split in range(counts.shape[1]):
        has_enough = counts[:, split] >= _NUM_IMAGES
        rows = np.lexsort((~has_enough, -spare))[:_NUM_CLASSES]
        if len(rows) < _NUM_CLASSES or np.any(spare[rows] < 1):
            return None
        needed[rows, split] = _NUM_IMAGES
        spare[rows] -= 1
    return needed


def _raise_counts(counts: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Returns `[S]` counts of the same sum, at least `needed`, changed the least."""
    ends, start = np.cumsum(counts), 0
    for split in range(len(counts) - 1):
        most = ends[-1] - needed[split + 1 :].sum()
        ends[split] = start = np.clip(ends[split], start + needed[split], most)
    return np.diff(ends, prepend=0)


def find_seen_classes(records: Mapping[str, Records]) -> list[str]:
    """Returns the names of the other splits that have classes of training.

    Args:
      records: Records of each split.
    """
    trained = records["train"].labels[:, -1]
    return [
        name
        for name, part in records.items()
        if name != "train" and np.any(np.isin(part.labels[:, -1], trained))
    ]


def _select_splits(pool: Records, assignment: np.ndarray) -> dict[str, Records]:
    """Returns the splits; a name tells if classes are shared with training."""
    labels = pool.labels[:, -1]
    trained = np.unique(labels[assignment == "train"])
    selected = {}
    for split in SPLITS:
        indices = np.flatnonzero(assignment == split)
        if split == "test" and not len(indices):
            continue  # None was asked for, or a dataset has none.
        if not len(indices):
            raise errors.DataError(
                f"{pool.name}: none of its {len(pool):,} records is in the {split} "
                "split; add images."
            )
        shares = split != "train" and bool(np.any(np.isin(labels[indices], trained)))
        name = f"{pool.name}/{split}{_SEEN_CLASSES if shares else ''}"
        selected[split] = select(pool, indices, name)
    return selected


def select(pool: Records, indices: np.ndarray, name: str) -> Records:
    """Returns some records of a pool, with the pool's labels.

    Args:
      pool: Records to select from.
      indices: `[M]` ints, indices in `pool`.
      name: Name of the selected records.
    """
    return Records(
        name=name,
        labels=pool.labels[indices],
        level_names=pool.level_names,
        level_titles=pool.level_titles,
        label_names=pool.label_names,
        read=_through(pool.read, indices),
        describe=_through(pool.describe, indices),
        columns={key: column[indices] for key, column in pool.columns.items()},
        column_names=pool.column_names,
        path=None if pool.path is None else _through(pool.path, indices),
    )


def _through(fn: Callable[[int], T], indices: np.ndarray) -> Callable[[int], T]:
    return lambda index: fn(int(indices[index]))
