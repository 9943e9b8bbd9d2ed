"""Which triplets come next, where a list says which there are?

Convention: a list names records by their indices; the order of its rows has no
meaning, since every pass takes them in an order of its own.
"""

from collections.abc import Iterator
import dataclasses
import functools
import hashlib
import itertools
from typing import Any

import numpy as np

from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling.epochs import Passes
from deeprank_jax.sampling.reservoir.candidates import categories
from deeprank_jax.sampling.reservoir.draws import CAUSES
from deeprank_jax.sampling.reservoir.sampler import Triplets

# Another number is another law of the passes.
STATE_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileTripletData:
    """What a file of triplets holds.

    Attributes:
      path: of the file, for messages.
      indices: `[T, 3]` int32 records; anchor, positive and negative on axis 1.
      relevance: `[T, 2]` float64, of the anchor to its positive and to its negative;
        None if the file does not say.
      num_left_out: how many rows hold an image of another split.
    """

    path: str
    indices: np.ndarray
    relevance: np.ndarray | None
    num_left_out: int = 0

    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns a short hash of the triplets, the same for the same."""
        digest = hashlib.sha256(self.indices.tobytes())
        if self.relevance is not None:
            digest.update(self.relevance.tobytes())
        return f"{len(self.indices)}-{digest.hexdigest()[:12]}"


class FileTriplets:
    """Takes its triplets from a list, in passes, as `TripletSampler` draws them.

    Law. Which rows a step has, `Passes` says: any step can be asked for at any time
    with the same result, at the cost of one batch.

    Corner cases:

    - A pass need not end with a batch: the next begins in the middle of it. A batch
      larger than the list holds several passes. Only there can a row be twice in a
      batch.
    - A row that the file lists twice is two rows.
    - In a pass no row is in two shards, and all are in one. A shard's own rows of a
      pass differ by at most one in number from those of another.
    - The file is believed: a positive may be of another class than the anchor, and
      less relevant than the negative by the run's relevance, as people disagree with
      labels. Where the file gives no relevance, it is the run's; the negative's is 0
      in another category, as `TripletSampler` has it.
    - Nothing is redrawn, so that every count is 0.

    Attributes:
      seed: as given.
      shard: as given.
    """

    def __init__(
        self,
        data: FileTripletData,
        records: Any,
        relevance: Relevance,
        *,
        seed: int,
        category_level: int | None,
        shard: int = 0,
        num_shards: int = 1,
    ):
        """Creates the sampler.

        Args:
          data: at least one triplet of the records.
          records: the `Records` that the file was read for, with the attributes that
            `relevance` compares.
          relevance: of two records by their attributes.
          seed: at least 0; of the passes' orders.
          category_level: which label is the category, a negative number counting from
            the finest; None puts all records into one.
          shard: which of the shards this is, from 0.
          num_shards: how many samplers share the list, at least 1.

        Raises:
          ValueError: an argument is out of its range.
        """
        if not len(data.indices):
            raise ValueError(f"{data.path}: holds no triplet.")
        self._passes = Passes(
            len(data.indices), seed=seed, shard=shard, num_shards=num_shards
        )
        if data.indices.min() < 0 or data.indices.max() >= len(records):
            raise ValueError(
                f"{data.path}: was read for other records than the {len(records):,} of "
                f"{records.name}."
            )
        categories(records.labels, category_level)  # Refuses what is no level.
        self.seed = seed
        self.shard = shard
        self._data = data
        self._records = records
        self._relevance = relevance
        self._category_level = category_level

    def sample(self, step: int, batch_size: int) -> Triplets:
        """Returns the triplets of a step.

        Args:
          step: at least 0; in any order.
          batch_size: `B`, at least 1.

        Raises:
          ValueError: an argument is out of its range.
        """
        rows = self._passes.rows(step, batch_size)
        triplets = create_triplets(
            self._data.indices[rows].astype(np.int64),
            self._records,
            self._relevance,
            self._category_level,
            step,
        )
        if self._data.relevance is None:
            return triplets
        return dataclasses.replace(triplets, relevance=self._data.relevance[rows])

    def state(self, step: int) -> dict[str, Any]:
        """Returns all that another sampler needs to go on after `step` batches.

        Which triplets there are is part of it, by a hash: with another list, the
        steps behind would not be those of the run. `num_shards` may be another, as
        long as the shards' batches hold as many triplets together.
        """
        return {
            "version": STATE_VERSION,
            "seed": self.seed,
            "step": step,
            "triplets": self._data.fingerprint,
            "num_shards": self._passes.num_shards,
        }


def create_triplets(
    indices: np.ndarray,
    records: Any,
    relevance: Relevance,
    category_level: int | None,
    step: int = 0,
) -> Triplets:
    """Returns triplets with what the records say of them.

    Args:
      indices: `[B, 3]` int64 records.
      records: `Records` with the attributes that `relevance` compares.
      relevance: of two records by their attributes.
      category_level: as of `FileTriplets`.
      step: at which they are used.
    """
    attributes = records.attributes[indices]
    pairs = np.array(
        relevance.pairwise(attributes[:, :1], attributes[:, 1:]), np.float64
    )
    in_class = np.ones(len(indices), bool)
    if category_level is not None:
        category = records.labels[:, category_level]
        in_class = category[indices[:, 0]] == category[indices[:, 2]]
    pairs[~in_class, 1] = 0.0
    return Triplets(
        step=step,
        indices=indices,
        attributes=attributes,
        relevance=pairs,
        in_class=in_class,
        counts=dict.fromkeys(CAUSES, 0),
    )


def draw_for_every_record(
    records: Any, num_positives: int, num_negatives: int, *, seed: int
) -> Iterator[Triplets]:
    """Draws the triplets that the well-known Keras sampler writes: by class alone.

    Every record is an anchor, with `num_positives` others of its class and, for each
    of these anew, `num_negatives` of all other classes; uniform, none twice, and all
    where there are fewer.

    Args:
      records: `Records`, whose finest label is the class.
      num_positives: at least 1.
      num_negatives: at least 1.
      seed: at least 0.

    Yields:
      The triplets of each record, class by class; none where its class has no other
      record or there is no other class.

    Raises:
      ValueError: a number is out of its range.
    """
    if min(num_positives, num_negatives) < 1 or seed < 0:
        raise ValueError(
            "num_positives and num_negatives must be at least 1 and seed at least 0, "
            f"got {num_positives}, {num_negatives} and {seed}."
        )
    rng = np.random.default_rng(seed)
    for indices in _draw_by_class(
        records.labels[:, -1], num_positives, num_negatives, rng
    ):
        yield Triplets(
            step=0,
            indices=indices,
            attributes=records.labels[indices],
            relevance=np.tile([1.0, 0.0], (len(indices), 1)),
            in_class=np.zeros(len(indices), bool),
            counts=dict.fromkeys(CAUSES, 0),
        )


def _draw_by_class(
    labels: np.ndarray,
    num_positives: int,
    num_negatives: int,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Yields triplets `[n, 3]` for each of `labels` `[N]`."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order], append=-1)) + 1
    for low, high in itertools.pairwise([0, *ends.tolist()]):
        num_same, num_other = high - low - 1, len(labels) - (high - low)
        shape = min(num_positives, num_same), min(num_negatives, num_other)
        for place in range(low, high):
            positives = low + rng.choice(num_same, shape[0], replace=False)
            positives += positives >= place
            negatives = np.empty(shape, np.int64)
            for row in negatives:
                row[:] = rng.choice(num_other, shape[1], replace=False)
            negatives += (negatives >= low) * (high - low)
            triplets = np.broadcast_arrays(place, positives[:, None], negatives)
            yield order[np.stack(triplets, axis=-1).reshape(-1, 3)]
