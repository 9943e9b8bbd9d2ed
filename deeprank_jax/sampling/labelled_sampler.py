"""Sampler of single labelled images in shuffled epochs, for classification."""

import dataclasses

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.sampling.epochs import ShuffledEpochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The images of one step; axis 1 has a single one.

    Attributes:
      step: Step that the images were drawn for.
      indices: `[B, 1]` int64, indices of records.
      labels: `[B, H]` int32, classes of the images for each of `H` heads, from 0; one
        head for classification.
      counts: Counts by cause: `bad_image`, images replaced because they could not be
        read.
    """

    step: int
    indices: np.ndarray
    labels: np.ndarray
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def take(self, source: np.ndarray, num_bad: int) -> "LabelledImages":
        """Returns the images at `source`, `[B]`; see `Triplets.take`."""
        return dataclasses.replace(
            self,
            indices=self.indices[source],
            labels=self.labels[source],
            counts={**self.counts, "bad_image": num_bad},
        )

    def metrics(self) -> dict[str, float]:
        """Returns metrics of the draw by the names that they are logged under."""
        return {f"sampler_failures/{cause}": n for cause, n in self.counts.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays that the train step needs beside the images."""
        return {"labels": self.labels}


class LabelledSampler:
    """Samples records in shuffled epochs; see `ShuffledEpochs`.

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
        indices: np.ndarray,
        labels: np.ndarray,
        *,
        seed: int,
        shard: int = 0,
        num_shards: int = 1,
    ):
        """Creates the sampler.

        Args:
          indices: `[T]` ints, indices of the training records, at least one.
          labels: `[T]` ints, class of each record, from 0; or `[T, H]` for several
            heads.
          seed: Seed of the epochs' orders, at least 0.
          shard: Index of this process among those that share the records, from 0.
          num_shards: Number of those processes, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        if len(indices) != len(labels):
            raise ValueError(
                f"labels must have one row for each of the {len(indices)} records, got "
                f"{len(labels)}."
            )
        self._epochs = ShuffledEpochs(
            len(indices), seed=seed, shard=shard, num_shards=num_shards
        )
        self.seed = seed
        self.shard = shard
        self._indices = np.asarray(indices, np.int64)
        self._labels = np.asarray(labels, np.int32).reshape(len(labels), -1)

    def sample(self, step: int, batch_size: int) -> LabelledImages:
        """Returns the images of a step.

        Args:
          step: Step, at least 0; in any order.
          batch_size: Batch size `B`, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        rows = self._epochs.rows(step, batch_size)
        return LabelledImages(
            step=step,
            indices=self._indices[rows][:, None],
            labels=self._labels[rows],
        )

    def state(self, step: int) -> dict[str, object]:
        """Returns all that another sampler needs to continue after `step` batches."""
        return {
            "version": self._epochs.version,
            "seed": self.seed,
            "step": step,
            "num_records": len(self._indices),
            "num_shards": self._epochs.num_shards,
        }

    def continue_as(self, version: int | None) -> None:
        """Draws in the orders of an older version, as a run began with them."""
        self._epochs.continue_as(version)


def hold_out(
    num_records: int, held_out: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits records at random into training and held-out records.

    Args:
      num_records: Number of records, at least 2.
      held_out: Share of held-out records, above 0 and below 1.
      seed: Seed of the split, at least 0.

    Returns:
      Indices for training and held-out indices, ascending, at least one each.

    Raises:
      DataError: There are fewer than 2 records.
      ValueError: The share is out of its range.
    """
    if not 0.0 < held_out < 1.0:
        raise ValueError(f"held_out must be above 0 and below 1, got {held_out}.")
    if num_records < 2:
        raise DataError(
            f"The training split has {num_records} image(s), but one is held out to "
            "measure the accuracy: give at least 2."
        )
    num_held_out = min(max(1, round(held_out * num_records)), num_records - 1)
    order = np.random.default_rng([seed, num_records]).permutation(num_records)
    return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])
