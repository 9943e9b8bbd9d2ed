"""Sampler of unlabelled images in shuffled epochs, each for one or more views."""

import dataclasses

import numpy as np

from deeprank_jax.sampling.epochs import ShuffledEpochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """The images of one step; axis 1 has the views of one image.

    Attributes:
      step: Step that the images were drawn for.
      indices: `[B, V]` int64, indices of records, the same in a row.
      counts: Counts by cause: `bad_image`, images replaced because they could not be
        read.
    """

    step: int
    indices: np.ndarray
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def take(self, source: np.ndarray, num_bad: int) -> "Views":
        """Returns the images at `source`, `[B]`; see `Groups.take`."""
        return dataclasses.replace(
            self,
            indices=self.indices[source],
            counts={**self.counts, "bad_image": num_bad},
        )

    def metrics(self) -> dict[str, float]:
        """Returns metrics of the draw by the names that they are logged under."""
        return {f"sampler_failures/{cause}": n for cause, n in self.counts.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays that the train step needs beside the images."""
        return {"instances": self.indices.astype(np.int32)}


class ViewSampler:
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
        num_records: int,
        *,
        num_views: int,
        seed: int,
        shard: int = 0,
        num_shards: int = 1,
    ):
        """Creates the sampler.

        Args:
          num_records: Number of records, at least 1.
          num_views: Number `V` of views of each image, at least 1.
          seed: Seed of the epochs' orders, at least 0.
          shard: Index of this process among those that share the records, from 0.
          num_shards: Number of those processes, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        if num_views < 1:
            raise ValueError(f"num_views must be at least 1, got {num_views}.")
        self._epochs = ShuffledEpochs(
            num_records, seed=seed, shard=shard, num_shards=num_shards
        )
        self.seed = seed
        self.shard = shard
        self._num_records = num_records
        self._num_views = num_views

    def sample(self, step: int, batch_size: int) -> Views:
        """Returns the images of a step.

        Args:
          step: Step, at least 0; in any order.
          batch_size: Batch size `B`, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        rows = self._epochs.rows(step, batch_size)[:, None]
        rows = np.repeat(rows, self._num_views, axis=1).astype(np.int64)
        return Views(step=step, indices=rows)

    def state(self, step: int) -> dict[str, object]:
        """Returns all that another sampler needs to continue after `step` batches."""
        return {
            "version": self._epochs.version,
            "seed": self.seed,
            "step": step,
            "num_records": self._num_records,
            "num_views": self._num_views,
            "num_shards": self._epochs.num_shards,
        }
