"""Which rows of a list come next, when it is passed over again and again?"""

import numpy as np

from deeprank_jax.sampling import counter_rng


class Passes:
    """Passes over rows, each in a new order, dealt to shards.

    The passes, one after the other, are a stream of rows; with batches of `B` and `S`
    shards, step `t` takes the next `B * S` of it, and shard `s` of these the ones whose
    positions in the stream leave the remainder `s` when divided by `S`. All this is a
    function of `(seed, step)`: nothing is stored for a pass. It needs the same `B` at
    every step and in every shard.

    Attributes:
      seed: as given, as the other two.
      shard: which of the shards this is.
      num_shards: how many there are.
    """

    def __init__(self, size: int, *, seed: int, shard: int, num_shards: int):
        """Creates the passes.

        Args:
          size: how many rows there are, at least 1.
          seed: at least 0; of the passes' orders.
          shard: which of the shards this is, from 0.
          num_shards: how many share the rows, at least 1.

        Raises:
          ValueError: an argument is out of its range.
        """
        if seed < 0 or not 0 <= shard < num_shards:
            raise ValueError(
                "seed must be at least 0 and shard at least 0 and below num_shards, "
                f"got {seed}, {shard} and {num_shards}."
            )
        if size < 1:
            raise ValueError(
                f"There must be at least one row to pass over, got {size}."
            )
        self.seed, self.shard, self.num_shards = seed, shard, num_shards
        self._size = size

    def rows(self, step: int, batch_size: int) -> np.ndarray:
        """Returns the rows of a step of this shard, `[B]` int64.

        Args:
          step: at least 0; in any order.
          batch_size: `B`, at least 1.

        Raises:
          ValueError: an argument is out of its range.
        """
        if step < 0 or batch_size < 1:
            raise ValueError(
                "step must be at least 0 and batch_size at least 1, got "
                f"{step} and {batch_size}."
            )
        number = step * batch_size + np.arange(batch_size)
        passes, position = np.divmod(number * self.num_shards + self.shard, self._size)
        rows = np.empty_like(position)
        for pass_index in np.unique(passes):
            at = passes == pass_index
            rows[at] = counter_rng.permute(
                self.seed, int(pass_index), position[at], self._size
            )
        return rows
