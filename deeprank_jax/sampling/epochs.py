"""Shuffled epochs over rows, shared by several processes."""

import numpy as np

from deeprank_jax.sampling import counter_rng


class ShuffledEpochs:
    """Epochs over rows, each in a new order, divided among shards.

    The epochs, one after the other, are a stream of rows. With batches of `B` and `S`
    shards, step `t` takes the next `B * S` rows of the stream; shard `s` takes those
    whose positions in the stream leave the remainder `s` when divided by `S`. All
    this is a function of `(seed, step)`, without stored state. It needs the same `B`
    at every step and in every shard.

    Attributes:
      seed: Seed of the epochs' orders.
      shard: Index of this shard.
      num_shards: Number of shards.
      version: Version of the orders. Those of version 1 are uneven for few rows.
    """

    version = 2

    def __init__(self, size: int, *, seed: int, shard: int, num_shards: int):
        """Creates the epochs.

        Args:
          size: Number of rows, at least 1.
          seed: Seed of the epochs' orders, at least 0.
          shard: Index of this shard, from 0.
          num_shards: Number of shards, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}.")
        if not 0 <= shard < num_shards:
            raise ValueError(
                f"shard must be at least 0 and below num_shards={num_shards}, got "
                f"{shard}."
            )
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}.")
        self.seed, self.shard, self.num_shards = seed, shard, num_shards
        self._size = size

    def rows(self, step: int, batch_size: int) -> np.ndarray:
        """Returns this shard's rows of a step, `[B]` int64.

        Args:
          step: Step, at least 0; in any order.
          batch_size: Batch size `B`, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        check_step(step, batch_size)
        number = step * batch_size + np.arange(batch_size)
        epochs, position = np.divmod(number * self.num_shards + self.shard, self._size)
        rows = np.empty_like(position)
        for epoch in np.unique(epochs):
            at = epochs == epoch
            rows[at] = counter_rng.permute(
                self.seed,
                int(epoch),
                position[at],
                self._size,
                num_rounds=counter_rng.ROUNDS if self.version == 1 else None,
            )
        return rows

    def continue_as(self, version: int | None) -> None:
        """Uses the orders of an older version, as a run began with them."""
        if version == 1:
            self.version = version


def check_step(step: int, batch_size: int) -> None:
    """Checks the arguments of a sampler's `sample`.

    Raises:
      ValueError: The step is below 0, or the batch size below 1.
    """
    if step < 0:
        raise ValueError(f"step must be at least 0, got {step}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
