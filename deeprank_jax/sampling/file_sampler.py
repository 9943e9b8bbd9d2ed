"""Sampler of the triplets of a list, in shuffled epochs.

Convention: a list names records by their indices; the order of its rows has no
meaning, since every epoch has an order of its own.
"""

from collections.abc import Iterator
import dataclasses
import functools
import hashlib
import itertools

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling.epochs import ShuffledEpochs
from deeprank_jax.sampling.reservoir.candidates import categories
from deeprank_jax.sampling.reservoir.draws import CAUSES
from deeprank_jax.sampling.triplets import Triplets


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileTripletData:
    """The triplets of a file.

    Attributes:
      path: Path of the file, for messages.
      indices: `[T, 3]` int32, indices of records; anchor, positive and negative on
        axis 1.
      relevance: `[T, 2]` float64, relevance of the positive and of the negative to
        the anchor; None if the file has none.
      num_left_out: Number of rows that were left out, as they hold an image of
        another split.
    """

    path: str
    indices: np.ndarray
    relevance: np.ndarray | None
    num_left_out: int = 0

    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns a short hash of the triplets."""
        digest = hashlib.sha256(self.indices.tobytes())
        if self.relevance is not None:
            digest.update(self.relevance.tobytes())
        return f"{len(self.indices)}-{digest.hexdigest()[:12]}"


class FileSampler:
    """Samples the triplets of a list, with the interface of `TripletSampler`.

    `ShuffledEpochs` gives the rows of a step: any step can be sampled at any time
    with the same result, at the cost of one batch.

    Corner cases:

    - An epoch need not end with a batch: the next one begins in the middle of it. A
      batch larger than the list holds several epochs. Only there can a row be twice
      in a batch.
    - A row that the file lists twice is two rows.
    - In an epoch no row is in two shards, and all are in one. The number of a shard's
      rows in an epoch differs by at most one between shards.
    - The file is trusted: a positive may be of another class than the anchor, and
      less relevant than the negative by the run's relevance, as people disagree with
      labels. Where the file has no relevance, the run's is used; that of a negative
      of another category is 0, as in `TripletSampler`.
    - Nothing is redrawn, so that every count is 0.

    Attributes:
      seed: Seed of the epochs' orders.
      shard: Index of this process.
      has_fixed_steps: Always True; see `Sampler`.
      out_of_class: Always None; see `Sampler`.
    """

    has_fixed_steps = True
    out_of_class = None

    def __init__(
        self,
        data: FileTripletData,
        records: Records,
        relevance: Relevance,
        *,
        seed: int,
        category_level: int | None,
        shard: int = 0,
        num_shards: int = 1,
    ):
        """Creates the sampler.

        Args:
          data: Triplets of the records, at least one.
          records: Records that the file was read for, with the attributes that
            `relevance` compares.
          relevance: Relevance of two records by their attributes.
          seed: Seed of the epochs' orders, at least 0.
          category_level: Label level of the categories, a negative number counting
            from the finest; None puts all records into one category.
          shard: Index of this process among those that share the list, from 0.
          num_shards: Number of those processes, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        if not len(data.indices):
            raise DataError(f"{data.path}: holds no triplet; add rows to it.")
        self._epochs = ShuffledEpochs(
            len(data.indices), seed=seed, shard=shard, num_shards=num_shards
        )
        if data.indices.min() < 0 or data.indices.max() >= len(records):
            raise ValueError(
                f"data of {data.path} must index the {len(records):,} records of "
                f"{records.name}, but was read for other records."
            )
        categories(records.labels, category_level)  # Fails if there is no such level.
        self.seed = seed
        self.shard = shard
        self._data = data
        self._records = records
        self._relevance = relevance
        self._category_level = category_level

    def sample(self, step: int, batch_size: int) -> Triplets:
        """Returns the triplets of a step.

        Args:
          step: Step, at least 0; in any order.
          batch_size: Batch size `B`, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        rows = self._epochs.rows(step, batch_size)
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

    def state(self, step: int) -> dict[str, object]:
        """Returns all that another sampler needs to continue after `step` batches.

        It contains a hash of the triplets: another list would give other triplets at
        the steps before. `num_shards` may change as long as the batches of all shards
        together keep their size.
        """
        return {
            "version": self._epochs.version,
            "seed": self.seed,
            "step": step,
            "triplets": self._data.fingerprint,
            "num_shards": self._epochs.num_shards,
        }

    def continue_as(self, version: int | None) -> None:
        """Draws in the orders of an older version, as a run began with them."""
        self._epochs.continue_as(version)


def create_triplets(
    indices: np.ndarray,
    records: Records,
    relevance: Relevance,
    category_level: int | None,
    step: int = 0,
) -> Triplets:
    """Creates triplets with the attributes and relevances of their records.

    Args:
      indices: `[B, 3]` int64, indices of records.
      records: Records with the attributes that `relevance` compares.
      relevance: Relevance of two records by their attributes.
      category_level: Label level of the categories, as in `FileSampler`.
      step: Step that uses the triplets.
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
    records: Records, num_positives: int, num_negatives: int, *, seed: int
) -> Iterator[Triplets]:
    """Draws the triplets that the well-known Keras sampler writes: by class alone.

    Every record is an anchor, with `num_positives` others of its class and, for each
    of these anew, `num_negatives` of all other classes; uniform, none twice, and all
    where there are fewer.

    Args:
      records: Records, whose finest label is the class.
      num_positives: Number of positives per anchor, at least 1.
      num_negatives: Number of negatives per positive, at least 1.
      seed: Seed of the draws, at least 0.

    Yields:
      The triplets of each record, class by class; none where its class has no other
      record or there is no other class.

    Raises:
      ValueError: A number is out of its range.
    """
    numbers = {"num_positives": num_positives, "num_negatives": num_negatives}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}.")
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
