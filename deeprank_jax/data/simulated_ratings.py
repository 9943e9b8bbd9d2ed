"""What would a person say? Ratings made up from the names of the records, for a demo.

Convention: the three images of a triplet are of one split.
"""

from collections.abc import Mapping
import re

import numpy as np

from deeprank_jax import errors
from deeprank_jax.data.records import Records

# How many candidates to draw per triplet wanted; most pairs are equally similar.
_MAX_ROUNDS = 100
_SAME_NAME = 2.0


def simulate_ratings(
    splits: Mapping[str, Records],
    *,
    num: int,
    error_rate: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """Returns triplets as a rater who knows the names, not the images, orders them.

    For each split, in proportion to its records: an anchor is drawn, and two others,
    each from the records that share with it a level drawn at random, or from all. Of
    these the one with the higher `name_similarity` is the positive; pairs of equals
    are drawn again. Then the rater errs: some triplets are swapped.

    Args:
      splits: the records of each split.
      num: triplets, of all splits together.
      error_rate: in [0, 0.5), of triplets that are swapped; no distance can be
        expected to agree with more than the others.
      seed: of the draws.

    Returns:
      `[T, 3]` int64 rows of all splits in turn: anchor, positive, negative. There are
      fewer than `num` where a split has fewer than three records.

    Raises:
      DataError: in no split do names or levels tell records apart.
    """
    rng = np.random.default_rng(seed)
    total = sum(len(records) for records in splits.values())
    found, first = [], 0
    for records in splits.values():
        wanted = round(num * len(records) / total)
        found.append(first + _simulate_split(records, wanted, rng))
        first += len(records)
    triplets = np.concatenate(found)
    if not len(triplets):
        raise errors.DataError(
            "No triplet can be simulated: all records have the same name and levels."
        )
    swapped = rng.random(len(triplets)) < error_rate
    triplets[swapped, 1:] = triplets[swapped, :0:-1]
    return triplets


def name_similarity(records: Records, a: int, b: int) -> float:
    """Returns how alike two records are by what they are called.

    One for each level they share but the finest, plus twice the share of words, of
    all in the names of their finest labels, that both have.
    """
    shared = int(np.sum(records.labels[a, :-1] == records.labels[b, :-1]))
    one, two = (_words(records.label_name(i)) for i in (a, b))
    return shared + _SAME_NAME * len(one & two) / max(1, len(one | two))


def _simulate_split(
    records: Records, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    triplets = np.zeros((0, 3), np.int64)
    if len(records) < 3:
        return triplets
    mates = _Mates(records)
    for _ in range(_MAX_ROUNDS):
        short = wanted - len(triplets)
        if short <= 0:
            break
        drawn = []
        for anchor in rng.integers(len(records), size=short).tolist():
            one, two = (mates.draw(anchor, rng) for _ in range(2))
            if len({anchor, one, two}) < 3:
                continue
            near, far = (name_similarity(records, anchor, i) for i in (one, two))
            if near != far:
                pair = (one, two) if near > far else (two, one)
                drawn.append((anchor, *pair))
        new = np.array(drawn, np.int64).reshape(-1, 3)
        triplets = np.concatenate([triplets, new])
    return triplets


class _Mates:
    """Draws records that share a random level with another, or none."""

    def __init__(self, records: Records):
        self._labels = records.labels
        self._of_label = []
        for column in records.labels.T:
            order = np.argsort(column, kind="stable")
            labels, starts = np.unique(column[order], return_index=True)
            groups = np.split(order, starts[1:])
            self._of_label.append(dict(zip(labels.tolist(), groups, strict=True)))

    def draw(self, index: int, rng: np.random.Generator) -> int:
        """Returns a record, which may be the same."""
        level = int(rng.integers(len(self._of_label) + 1))
        if level == len(self._of_label):
            return int(rng.integers(len(self._labels)))
        return int(rng.choice(self._of_label[level][int(self._labels[index, level])]))


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", name.lower()))
