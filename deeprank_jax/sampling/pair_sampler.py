"""Sampler of listed pairs of images, similar or not, in shuffled epochs."""

import dataclasses
import functools
import hashlib

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.sampling.epochs import ShuffledEpochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedPairs:
    """The pairs of a file whose images are both in a split.

    Attributes:
      path: Path of the file, for messages.
      indices: `[P, 2]` int32, indices of records.
      is_similar: `[P]` bool, True for a similar pair.
      num_left_out: Number of other pairs of the file, with an image of another split.
      num_unknown: Number of those whose image may be one of another split, as these are
        not known, or none at all.
    """

    path: str
    indices: np.ndarray
    is_similar: np.ndarray
    num_left_out: int = 0
    num_unknown: int = 0

    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns a short hash of the pairs."""
        digest = hashlib.sha256(self.indices.tobytes())
        digest.update(self.is_similar.tobytes())
        return f"{len(self.indices)}-{digest.hexdigest()[:12]}"

    def describe(self) -> str:
        """Returns a phrase with the numbers of pairs."""
        text = f"{len(self.indices):,} pairs, {int(self.is_similar.sum()):,} similar"
        if num_others := self.num_left_out - self.num_unknown:
            text += f"; {num_others:,} others have an image of another split"
        if self.num_unknown:
            text += f"; {self.num_unknown:,} name an image that is not in this split"
        return text

    def check_kinds(self, name: str, error: type[DataError] = DataError) -> None:
        """Checks that some pairs are similar and some are not.

        Args:
          name: Name of the split's records, for the message.
          error: Class of the error.

        Raises:
          DataError: There is no pair, or no pair of one kind.
        """
        if not len(self.indices):
            raise error(
                f"{self.path}: none of its {self.num_left_out:,} pairs has both images "
                f"in {name}; add pairs of images of that split, or give it more images "
                "by the shares of config.data.source."
            )
        if self.is_similar.all() or not self.is_similar.any():
            kinds = ("similar", "different")
            kind, other = kinds if self.is_similar[0] else kinds[::-1]
            raise error(
                f"{self.path}: all {len(self.indices):,} pairs of {name} are {kind}; "
                f"add some that are {other}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pairs of one step; axis 1 has the two images.

    Attributes:
      step: Step that the pairs were drawn for.
      indices: `[B, 2]` int64, indices of records.
      is_similar: `[B]` bool, True for a similar pair.
      counts: Counts by cause: `bad_image`, pairs replaced because an image could not
        be read.
    """

    step: int
    indices: np.ndarray
    is_similar: np.ndarray
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def take(self, source: np.ndarray, num_bad: int) -> "Pairs":
        """Returns the pairs at `source`, `[B]`; see `Groups.take`."""
        return dataclasses.replace(
            self,
            indices=self.indices[source],
            is_similar=self.is_similar[source],
            counts={**self.counts, "bad_image": num_bad},
        )

    def metrics(self) -> dict[str, float]:
        """Returns metrics of the draw by the names that they are logged under."""
        return {
            "sampler_pairs/similar": int(self.is_similar.sum()),
            "sampler_pairs/different": int(np.sum(~self.is_similar)),
            **{f"sampler_failures/{cause}": n for cause, n in self.counts.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays that the train step needs beside the images."""
        return {"is_similar": self.is_similar.astype(np.int32)}


class PairSampler:
    """Samples the pairs of a list in shuffled epochs; see `ShuffledEpochs`.

    Attributes:
      seed: Seed of the epochs' orders.
      shard: Index of this process.
      has_fixed_steps: Always True; see `Sampler`.
      out_of_class: Always None; see `Sampler`.
    """

    has_fixed_steps = True
    out_of_class = None

    def __init__(
        self, pairs: ListedPairs, *, seed: int, shard: int = 0, num_shards: int = 1
    ):
        """Creates the sampler.

        Args:
          pairs: Pairs of the training records, at least one.
          seed: Seed of the epochs' orders, at least 0.
          shard: Index of this process among those that share the list, from 0.
          num_shards: Number of those processes, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        self._epochs = ShuffledEpochs(
            len(pairs.indices), seed=seed, shard=shard, num_shards=num_shards
        )
        self.seed = seed
        self.shard = shard
        self._pairs = pairs

    def sample(self, step: int, batch_size: int) -> Pairs:
        """Returns the pairs of a step.

        Args:
          step: Step, at least 0; in any order.
          batch_size: Batch size `B`, at least 1.

        Raises:
          ValueError: An argument is out of its range.
        """
        rows = self._epochs.rows(step, batch_size)
        return Pairs(
            step=step,
            indices=self._pairs.indices[rows].astype(np.int64),
            is_similar=self._pairs.is_similar[rows],
        )

    def state(self, step: int) -> dict[str, object]:
        """Returns all that another sampler needs to continue after `step` batches."""
        return {
            "version": self._epochs.version,
            "seed": self.seed,
            "step": step,
            "pairs": self._pairs.fingerprint,
            "num_shards": self._epochs.num_shards,
        }
