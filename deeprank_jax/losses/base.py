"""The interface of a loss."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax

from deeprank_jax.errors import ConfigError

Array = jax.Array
RelevanceFn = Callable[[Array, Array], Array]


class LossFn(Protocol):
    """A loss of groups of images, e.g. of triplets."""

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Array],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per group.

        Args:
          outputs: `[B, n, D]` float, the network's outputs for each image of a group.
          batch: Arrays of this device's share of the batch, e.g. `attributes [B, n, A]`
            or `labels [B, n]`.
          step: `[]` int, number of batches before this one.
          key: Random key of the step, the same on all devices.
        """
        ...


class Loss(LossFn, Protocol):
    """A loss by name, created from the options of `config.loss`.

    Its constructor takes its options as keywords, and of the following those that it
    needs: `relevance_fn` (graded similarity of two attributes), `min_relevance_gap`
    (`T_r` of the paper's equation (8)), `axis_name` (mapped axis over devices, or
    None), `positives_per_anchor` and `negatives_per_anchor` (sizes of a group), and
    `miner`.

    Attributes:
      outputs: Kind of network output that it takes: `"embeddings"`, `"logits"`,
        `"cosines"` to a learned vector per class, `"code_cosines"` to a fixed code per
        class, `"logits_and_features"` of the trunk, in this order in one array,
        `"projections"` of views of unlabelled images, of each of which it takes
        `num_views`, 1 or 2, `"pairs"`, embeddings of listed pairs, for which the batch
        holds `is_similar [B]`, 1 or 0, or `"images"`, reconstructions of those that the
        batch holds.
    """

    outputs: str

    def describe(self) -> str:
        """Returns a short text for reports, e.g. `"hinge, margin 0.2"`."""
        ...


@runtime_checkable
class RemembersClasses(Protocol):
    """A loss of classes with arrays of its own, e.g. the center of each class.

    They are part of the state of training, and each batch holds them as `memory`.
    The loss is one for `config.task.name="classification"`, or, if it takes
    projections, for `"self_supervised"`, where each training image is a class.
    """

    outputs: str

    @staticmethod
    def create_memory(num_classes: int, num_features: int) -> dict[str, Array]:
        """Returns the arrays before the first batch."""
        ...

    def remember(
        self, memory: Mapping[str, Array], outputs: Array, batch: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Returns the arrays after a batch, the same on all devices.

        Args:
          memory: Arrays before the batch.
          outputs: `[B, n, D]` float, outputs for this device's images.
          batch: Arrays of this device's share of the batch.
        """
        ...


def update_memory(
    loss: LossFn, memory: Mapping[str, Array], outputs: Array, batch: Mapping[str, Any]
) -> dict[str, Array]:
    """Returns the memory of a loss after a batch; see `RemembersClasses.remember`.

    Raises:
      ConfigError: The loss has no method `remember`.
    """
    if not isinstance(loss, RemembersClasses):
        raise ConfigError(
            f"{type(loss).__name__} has a memory and no method `remember`: see "
            "losses/base.py."
        )
    return loss.remember(memory, outputs, batch)
