"""Simulated ratings of triplets, from the names of the records, for demonstrations.

Convention: the three images of a triplet belong to one split.
"""

from collections.abc import Mapping
import re

import numpy as np

from deeprank_jax import errors
from deeprank_jax.data.records import Records

# Most pairs are equally similar, and are drawn again.
_MAX_ROUNDS = 100
_SAME_NAME = 2.0


def simulate_ratings(
    splits: Mapping[str, Records],
    *,
    num: int,
    error_rate: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """Simulates a rater who knows the names but not the images.

    For each split, in proportion to its records, draws an anchor and two others, each
    from the records that share a random level with it, or from all. The one with the
    higher `name_similarity` is the positive; equal pairs are drawn again. Then positive
    and negative of some triplets are swapped, as errors of the rater.

    Args:
      splits: Records by split.
      num: Number of triplets of all splits together.
      error_rate: Share of swapped triplets in [0, 0.5); no distance can be expected to
        agree with them.
      seed: Seed of the draws.

    Returns:
      `[T, 3]` int64, rows of all splits in turn: anchor, positive, negative. There are
      fewer than `num` if a split has fewer than three records.

    Raises:
      DataError: All records of each split have the same name and levels.
    """
    rng = np.random.default_rng(seed)
    total = sum(len(records) for records in splits.values())
    parts, first = [], 0
    for records in splits.values():
        num_in_split = round(num * len(records) / total)
        parts.append(first + _simulate_split(records, num_in_split, rng))
        first += len(records)
    triplets = np.concatenate(parts)
    if not len(triplets):
        raise errors.DataError(
            "No triplet can be simulated, because all records have the same name and "
            "levels; use records of several classes."
        )
    swapped = rng.random(len(triplets)) < error_rate
    triplets[swapped, 1:] = triplets[swapped, :0:-1]
    return triplets


def name_similarity(records: Records, a: int, b: int) -> float:
    """Returns the similarity of the names of two records.

    It is 1 for each level but the finest that they share, plus twice the share of
    common words in the names of their finest labels.

    Args:
      records: Records of a split.
      a: Index of a record.
      b: Index of another.
    """
    shared = int(np.sum(records.labels[a, :-1] == records.labels[b, :-1]))
    one, two = (_words(records.label_name(i)) for i in (a, b))
    return shared + _SAME_NAME * len(one & two) / max(1, len(one | two))


def _simulate_split(records: Records, num: int, rng: np.random.Generator) -> np.ndarray:
    triplets = np.zeros((0, 3), np.int64)
    if len(records) < 3:
        return triplets
    mates = _Mates(records)
    for _ in range(_MAX_ROUNDS):
        num_missing = num - len(triplets)
        if num_missing <= 0:
            break
        new = []
        for anchor in rng.integers(len(records), size=num_missing).tolist():
            one, two = (mates.draw(anchor, rng) for _ in range(2))
            if len({anchor, one, two}) < 3:
                continue
            near, far = (name_similarity(records, anchor, i) for i in (one, two))
            if near != far:
                pair = (one, two) if near > far else (two, one)
                new.append((anchor, *pair))
        triplets = np.concatenate([triplets, np.array(new, np.int64).reshape(-1, 3)])
    return triplets


class _Mates:
    """Draws records that share a random level with another record, or none."""

    def __init__(self, records: Records):
        self._labels = records.labels
        self._of_label = []
        for column in records.labels.T:
            order = np.argsort(column, kind="stable")
            labels, starts = np.unique(column[order], return_index=True)
            groups = np.split(order, starts[1:])
            self._of_label.append(dict(zip(labels.tolist(), groups, strict=True)))

    def draw(self, index: int, rng: np.random.Generator) -> int:
        """Returns the index of a record, possibly the same."""
        level = int(rng.integers(len(self._of_label) + 1))
        if level == len(self._of_label):
            return int(rng.integers(len(self._labels)))
        return int(rng.choice(self._of_label[level][int(self._labels[index, level])]))


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", name.lower()))
