"""Batches with their images, prepared ahead of the step that uses them.

A batch is of triplets, or of single images where a network learns to tell classes.
"""

import collections
from collections.abc import Callable
from concurrent import futures
import dataclasses
import time
from typing import Any, Protocol, Self

import numpy as np

from deeprank_jax.sampling import counter_rng
from deeprank_jax.sampling.labelled_sampler import LabelledImages
from deeprank_jax.sampling.reservoir.sampler import Triplets

Drawn = Triplets | LabelledImages


class Sampler(Protocol):
    """What a stream asks: `TripletSampler`, `FileTriplets` or `LabelledSampler`.

    Attributes:
      seed: at least 0.
      shard: which of the processes this is.
    """

    seed: int
    shard: int

    def sample(self, step: int, batch_size: int) -> Drawn:
        """Returns what is drawn at a step, always the same."""
        ...

    def state(self, step: int) -> dict[str, Any]:
        """Returns what it takes to go on after `step` batches."""
        ...


LoadFn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
AugmentFn = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """What was drawn and what it looks like.

    Attributes:
      images: `[B, n, H, W, C]` uint8 in memory of its own, `n` being 3 for triplets.
      drawn: what the images show; its counts include `bad_image`, how many were
        replaced because an image could not be read.
    """

    images: np.ndarray
    drawn: Drawn


class BatchStream:
    """An iterator of `Batch`, prepared by a thread a few steps ahead.

    A context manager: leaving it, early or not, ends the thread after the batch that
    it is at.

        with BatchStream(sampler, 64, load, augment, first_step=0, num_steps=100,
                         depth=2) as stream:
            for batch in stream:
                ...

    Attributes:
      wait_seconds: how long the consumer has waited for batches, in all.
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
          sampler: used by the thread alone while the context lasts.
          batch_size: `B`, at least 1.
          load_fn: maps indices `[n]` to images `[n, H, W, C]` and whether each could
            be read, `[n]` bool. Each distinct record of a batch is asked for once.
          augment_fn: maps images `[B, n, H, W, C]`, which it may overwrite, and the
            step's generator to images of the same batch.
          first_step: the step of the first batch, at least 0.
          num_steps: how many batches there are, at least 0.
          depth: how many batches are prepared ahead; 0 prepares each when asked.

        Raises:
          ValueError: a number is out of its range.
        """
        if batch_size < 1 or min(first_step, num_steps, depth) < 0:
            raise ValueError(
                "batch_size must be at least 1, first_step, num_steps and depth at "
                f"least 0, got {batch_size}, {first_step}, {num_steps} and {depth}."
            )
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
        """Ends the thread; batches that nobody asked for are dropped."""
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
          RuntimeError: the context was not entered or has been left.
          ValueError: no image of the batch could be read. Whatever else the sampler
            and the functions raise is raised here, too.
        """
        if self._executor is None:
            raise RuntimeError("A BatchStream is read inside `with stream:`.")
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

    def state(self) -> dict[str, Any]:
        """Returns what it takes to go on behind the last batch that was consumed.

        What is prepared ahead leaves no trace in it: a stream whose `first_step` is
        the state's `step` begins with the next batch.
        """
        return self._sampler.state(self._consumed)

    def _submit(self) -> None:
        step = next(self._steps, None)
        if step is not None and self._executor is not None:
            self._pending.append(self._executor.submit(self._prepare, step))

    def _prepare(self, step: int) -> Batch:
        drawn = self._sampler.sample(step, self._batch_size)
        records, inverse = np.unique(drawn.indices, return_inverse=True)
        images, ok = self._load_fn(records)
        inverse = inverse.reshape(drawn.indices.shape)
        drawn, source = _replace_bad(drawn, np.all(ok[inverse], axis=1))
        # Indexing copies: no two triplets, and no two batches, share memory.
        images = images[inverse[source]]
        rng = counter_rng.step_rng(
            self._sampler.seed, counter_rng.AUGMENT, step, self._sampler.shard
        )
        return Batch(
            images=np.ascontiguousarray(self._augment_fn(images, rng)), drawn=drawn
        )


def _replace_bad(drawn: Drawn, good: np.ndarray) -> tuple[Drawn, np.ndarray]:
    """Puts the next good one of the batch, cyclically, where one is bad.

    Returns:
      What is drawn then, and `[B]` which of the old ones each of it is.

    Raises:
      ValueError: none is good.
    """
    source = np.arange(len(good))
    if not good.any():
        raise ValueError(
            f"Nothing that was drawn at step {drawn.step} has readable images, e.g. "
            f"records {drawn.indices[0].tolist()}: check that the images are where the "
            "dataset says."
        )
    bad, valid = source[~good], source[good]
    source[bad] = valid[np.searchsorted(valid, bad) % len(valid)]
    return drawn.take(source, len(bad)), source
