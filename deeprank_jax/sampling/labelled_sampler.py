"""Which images come next, where a network learns to tell classes: shuffled passes."""

import dataclasses
from typing import Any

import numpy as np

from deeprank_jax.sampling.epochs import Passes

# Another number is another law of the passes.
STATE_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The images of one step; axis 1 has a single one.

    Attributes:
      step: at which they were drawn.
      indices: `[B, 1]` int64 records.
      labels: `[B, 1]` int32, which class each is, from 0.
      counts: `bad_image`, how many were replaced because they could not be read.
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

    def watched(self) -> dict[str, float]:
        """Returns what there is to watch, by the names that it is logged under."""
        return {f"sampler_failures/{cause}": n for cause, n in self.counts.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what the train step needs beside the images."""
        return {"labels": self.labels}


class LabelledSampler:
    """Passes over records again and again, each time in a new order.

    Which records a step has, `Passes` says.

    Attributes:
      seed: as given.
      shard: as given.
    """

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
          indices: `[T]` int, the records to learn from, at least one.
          labels: `[T]` int, the class of each, from 0.
          seed: at least 0; of the passes' orders.
          shard: which of the shards this is, from 0.
          num_shards: how many samplers share the records, at least 1.

        Raises:
          ValueError: an argument is out of its range.
        """
        if len(indices) != len(labels):
            raise ValueError(
                "There must be a label for each record, got "
                f"{len(indices)} records and {len(labels)} labels."
            )
        self._passes = Passes(
            len(indices), seed=seed, shard=shard, num_shards=num_shards
        )
        self.seed = seed
        self.shard = shard
        self._indices = np.asarray(indices, np.int64)
        self._labels = np.asarray(labels, np.int32)

    def sample(self, step: int, batch_size: int) -> LabelledImages:
        """Returns the images of a step.

        Args:
          step: at least 0; in any order.
          batch_size: `B`, at least 1.

        Raises:
          ValueError: an argument is out of its range.
        """
        rows = self._passes.rows(step, batch_size)
        return LabelledImages(
            step=step,
            indices=self._indices[rows][:, None],
            labels=self._labels[rows][:, None],
        )

    def state(self, step: int) -> dict[str, Any]:
        """Returns all that another sampler needs to go on after `step` batches."""
        return {
            "version": STATE_VERSION,
            "seed": self.seed,
            "step": step,
            "num_records": len(self._indices),
            "num_shards": self._passes.num_shards,
        }


def hold_out(
    num_records: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits records at random into those to learn from and those to be asked about.

    Args:
      num_records: at least 2.
      share: of those that are held out, above 0 and below 1.
      seed: at least 0.

    Returns:
      Indices to learn from and indices held out, ascending, at least one each.

    Raises:
      ValueError: an argument is out of its range.
    """
    if num_records < 2 or not 0.0 < share < 1.0:
        raise ValueError(
            "config.task.held_out must be above 0 and below 1 and the "
            f"training split hold at least 2 images, got {share} and {num_records}."
        )
    num_held = min(max(1, round(share * num_records)), num_records - 1)
    order = np.random.default_rng([seed, num_records]).permutation(num_records)
    return np.sort(order[num_held:]), np.sort(order[:num_held])
