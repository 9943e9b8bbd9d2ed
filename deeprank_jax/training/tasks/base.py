"""The interface of a task."""

from collections.abc import Callable, Mapping
from typing import Protocol

from flax import nnx
import numpy as np

from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.training.health import TrainingMonitor
from deeprank_jax.training.step import Objective

Check = Callable[[], None]


class Task(Protocol):
    """A task: the network, batches and loss that a run trains with.

    Its constructor takes the options of `config.task` as keywords, and `config` and
    `relevance`.

    Attributes:
      needs_records: True if `create_model` depends on the records, so that `prepare`
        has to come first.
      draws_triplets: True if a batch holds triplets, False if single images or views.
      augments_alone: True if flip and colours are drawn for each image of a group, as
        for views of the same image; False if once for the group.
      METRICS: Meaning of each metric that `validate` returns, by name.

    A task that draws no triplets may have further attributes, of its class:

      unit: What `config.batch_size` counts, for the report; `"images"` without it.
      images_per_group: Number of images in one of these; 1 without it, or the number of
        views that the loss takes.
      count_groups: Function of the whole config and the records of each split, to the
        number of these in an epoch; the training images without it, or where it is 0.
        By it the data decide `config.num_steps`.

    Any task may have:

      validation_split: Split whose images `validate` reads; `"train"` without it, of
        which the task holds some out.
      reconstruct: Method from the network's outputs, the reader of a split and indices
        `[n]` to rows of pictures `[n, S, S, 3]` uint8 by title, for the report.
    """

    needs_records: bool
    draws_triplets: bool
    augments_alone: bool
    METRICS: Mapping[str, str]

    def prepare(self, records: Mapping[str, Records]) -> None:
        """Takes the records of each split, with their attributes.

        Raises:
          ConfigError: The task cannot be learned from them.
        """
        ...

    def create_model(self) -> nnx.Module:
        """Returns the network as an NNX module, with random weights."""
        ...

    def create_sampler(
        self, records: Mapping[str, Records], *, shard: int, num_shards: int
    ) -> Sampler:
        """Returns the sampler of this process's part of each batch.

        Args:
          records: Records of each split.
          shard: Index of this process among those that share the draws.
          num_shards: Number of those processes.
        """
        ...

    def objective(self) -> Objective:
        """Returns the loss of a batch and the metrics of training."""
        ...

    def validate(
        self,
        outputs_fn: Callable[[np.ndarray], np.ndarray],
        reader: ImageReader,
        *,
        check: Check,
    ) -> dict[str, float]:
        """Returns the task's own validation metrics by name; they may be none.

        Args:
          outputs_fn: Function from uint8 images `[B, H, W, 3]` to the network's outputs
            `[B, D]`.
          reader: Images of the training split, or of `validation_split`.
          check: Function that is called for each batch, and may raise to end early.
        """
        ...

    def health(self) -> TrainingMonitor | None:
        """Returns the monitor of training metrics, if the task has one."""
        ...

    def describe(self) -> dict[str, str]:
        """Returns lines of the report: title and text."""
        ...
