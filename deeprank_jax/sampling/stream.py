"""Stream of batches with their images, prepared ahead of the steps that use them.

A batch holds triplets or, for classification, single images, or views of images, or
pairs.
"""

import collections
from collections.abc import Callable
from concurrent import futures
import dataclasses
import time
from typing import Protocol, Self, runtime_checkable

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.sampling import counter_rng
from deeprank_jax.sampling.groups import Groups
from deeprank_jax.sampling.labelled_sampler import LabelledImages
from deeprank_jax.sampling.pair_sampler import Pairs
from deeprank_jax.sampling.view_sampler import Views

Drawn = Groups | LabelledImages | Pairs | Views


class Sampler(Protocol):
    """Interface of `TripletSampler`, `FileSampler` and the samplers of images.

    Attributes:
      seed: Seed of all draws, at least 0.
      shard: Index of this process among those that share the draws.
    """

    seed: int
    shard: int

    @property
    def has_fixed_steps(self) -> bool:
        """Returns True if a step's batch exists for the run's batch size only."""
        ...

    @property
    def out_of_class(self) -> float | None:
        """Returns the configured share of negatives of other categories, if any."""
        ...

    def sample(self, step: int, batch_size: int) -> Drawn:
        """Returns the batch of a step, always the same."""
        ...

    def state(self, step: int) -> dict[str, object]:
        """Returns all that another sampler needs to continue after `step` batches."""
        ...


@runtime_checkable
class VersionedSampler(Protocol):
    """Sampler that can draw as an older version of it did."""

    def continue_as(self, version: int | None) -> None:
        """Draws by the law of an older version from here on, as a run began with it.

        Args:
          version: Version in the state that `state` returned; None if it has none.
        """
        ...


class RankingSampler(Sampler, Protocol):
    """Interface of a sampler of groups, i.e. of those in `config.sampler`."""

    def sample(self, step: int, batch_size: int) -> Groups:
        """Returns the groups of a step, always the same."""
        ...


LoadFn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
AugmentFn = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Triplets, labelled images, views or pairs of a step, with their pixels.

    Attributes:
      images: `[B, n, H, W, C]` uint8, pixels in memory of their own, `n` being 3 for
        triplets.
      groups: Records of the images; its counts include `bad_image`, the number of
        groups replaced because an image could not be read.
    """

    images: np.ndarray
    groups: Drawn


class BatchStream:
    """An iterator of `Batch`, prepared by a thread a few steps ahead.

    A context manager: leaving it, early or not, ends the thread after its current
    batch.

        with BatchStream(sampler, 64, load, augment, first_step=0, num_steps=100,
                         depth=2) as stream:
            for batch in stream:
                ...

    Attributes:
      wait_seconds: Total time that the consumer has waited for batches.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        load_fn: LoadFn,
        augment_fn: AugmentFn,
        *,
        first_step: int,
        num_steps: int,
        depth: int = 2,
    ):
        """Creates the stream; the thread starts when its context is entered.

        Args:
          sampler: Sampler; used by the thread alone while the context lasts.
          batch_size: Batch size `B`, at least 1.
          load_fn: Function from indices `[n]` to images `[n, H, W, C]` and a mask
            `[n]` of those that could be read. Each record is loaded once per batch.
          augment_fn: Function from images `[B, n, H, W, C]`, which it may overwrite,
            and the step's generator to images of the same batch.
          first_step: Step of the first batch, at least 0.
          num_steps: Number of batches, at least 0.
          depth: Number of batches prepared ahead; 0 prepares each when it is needed.

        Raises:
          ValueError: A number is out of its range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        numbers = {"first_step": first_step, "num_steps": num_steps, "depth": depth}
        for name, value in numbers.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}.")
        self.wait_seconds = 0.0
        self._sampler = sampler
        self._batch_size = batch_size
        self._load_fn = load_fn
        self._augment_fn = augment_fn
        self._steps = iter(range(first_step, first_step + num_steps))
        self._consumed = first_step
        self._depth = depth
        self._pending: collections.deque[futures.Future[Batch]] = collections.deque()
        self._executor: futures.ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        """Starts the thread on the first batches."""
        self._executor = futures.ThreadPoolExecutor(1, "batch-stream")
        for _ in range(self._depth):
            self._submit()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the thread and drops batches that were not consumed."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
          RuntimeError: The context was not entered or has been left.
          DataError: No image of the batch could be read. Errors of the sampler and of
            the functions are raised here, too.
        """
        if self._executor is None:
            raise RuntimeError("A BatchStream must be read inside `with stream:`.")
        self._submit()
        if not self._pending:
            raise StopIteration
        start = time.perf_counter()
        try:
            batch = self._pending.popleft().result()
        finally:
            self.wait_seconds += time.perf_counter() - start
        self._consumed += 1
        return batch

    def state(self) -> dict[str, object]:
        """Returns the sampler's state after the last batch that was consumed.

        Batches prepared ahead do not change it: a stream whose `first_step` is the
        state's `step` begins with the next batch.
        """
        return self._sampler.state(self._consumed)

    def _submit(self) -> None:
        step = next(self._steps, None)
        if step is not None and self._executor is not None:
            self._pending.append(self._executor.submit(self._prepare, step))

    def _prepare(self, step: int) -> Batch:
        groups = self._sampler.sample(step, self._batch_size)
        records, inverse = np.unique(groups.indices, return_inverse=True)
        images, ok = self._load_fn(records)
        inverse = inverse.reshape(groups.indices.shape)
        groups, source = _replace_bad(groups, np.all(ok[inverse], axis=1))
        # Indexing copies: no two triplets, and no two batches, share memory.
        images = images[inverse[source]]
        rng = counter_rng.step_rng(
            self._sampler.seed, counter_rng.AUGMENT, step, self._sampler.shard
        )
        return Batch(
            images=np.ascontiguousarray(self._augment_fn(images, rng)), groups=groups
        )


def _replace_bad(drawn: Drawn, good: np.ndarray) -> tuple[Drawn, np.ndarray]:
    """Replaces each bad group of the batch by the next good one, cyclically.

    Args:
      drawn: Groups of the batch, e.g. triplets.
      good: `[B]` bool, False for a group with an unreadable image.

    Returns:
      The groups after replacement, and `[B]` ints, the place of each in `drawn`.

    Raises:
      DataError: No group is good.
    """
    source = np.arange(len(good))
    if not good.any():
        raise DataError(
            f"Nothing in the batch of step {drawn.step} has readable images, e.g. not "
            f"records {drawn.indices[0].tolist()}: check that the images are where the "
            "dataset expects them."
        )
    bad, valid = source[~good], source[good]
    source[bad] = valid[np.searchsorted(valid, bad) % len(valid)]
    return drawn.take(source, len(bad)), source
