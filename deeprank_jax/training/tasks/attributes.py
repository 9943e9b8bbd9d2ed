"""Classification of several attributes at once, with a head for each.

The features of one trunk serve all heads, so that images with more attributes in common
get features nearer to each other. The features of any image are an embedding, scaled to
length 1, as for `classification`.
"""

from collections.abc import Callable, Mapping
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeprank_jax import losses
from deeprank_jax.data.named_labels import find_labels
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses import cross_entropy
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling.labelled_sampler import LabelledSampler, hold_out
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.training import network
from deeprank_jax.training.held_out import mean_over_held_out
from deeprank_jax.training.step import Batch, Metrics, Objective
from deeprank_jax.training.tasks.classification import create_class_loss

# Kinds of network output that a loss of a head takes.
OUTPUTS = ("logits", "cosines")
_OPTION = "config.task.weights"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """An attribute, and its part of the network's outputs.

    The network has one linear map to the classes of all attributes, of which each head
    is a slice: heads share no parameter but those of the trunk.

    Attributes:
      name: Name of the attribute.
      weight: Weight of its loss.
      outputs: Slice of its outputs, one for each of its classes.
    """

    name: str
    weight: float
    outputs: slice


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledHeads:
    """Heads of a training split, its labels, and the division of its images.

    Attributes:
      heads: The `H` heads.
      labels: `[N, H]` int32, class of each record for each head, from 0.
      training: `[T]` indices of the records to train on.
      held_out: `[M]` indices of the other records.
    """

    heads: tuple[Head, ...]
    labels: np.ndarray
    training: np.ndarray
    held_out: np.ndarray

    @property
    def num_outputs(self) -> int:
        """Returns the number of classes of all attributes together."""
        return self.heads[-1].outputs.stop


class Attributes:
    """Single images, each with several attributes: the trunk and a head for each."""

    needs_records = True
    draws_triplets = False
    augments_alone = False

    def __init__(
        self,
        *,
        weights: Mapping[str, float],
        held_out: float = 0.1,
        held_out_by: str = "",
        config: ml_collections.ConfigDict,
        relevance: Relevance,
    ):
        """Creates the task.

        Args:
          weights: Weight of each attribute's loss by the name of a level or column, at
            least 0, and not all 0; an attribute of weight 0 gets no head.
          held_out: Share of the training images that are kept for validation.
          held_out_by: Level or column whose images are held out together, e.g. those of
            one original; "" holds out single images.
          config: Whole configuration.
          relevance: Relevance of the run, which a loss may use.

        Raises:
          ConfigError: The loss does not exist, or takes neither logits nor cosines.
          ValueError: The weights or the share are out of their range.
        """
        values = np.array([float(weight) for weight in weights.values()])
        is_valid = np.isfinite(values).all() and (values >= 0).all()
        if not is_valid or not (values > 0).any():
            raise ValueError(
                "weights must be finite, at least 0 and not all 0, "
                f"got {dict(weights) or 'none'}."
            )
        if not 0 < held_out < 1:
            raise ValueError(f"held_out must be above 0 and below 1, got {held_out}.")
        # Sorted: the order of a saved config is no part of the run.
        self._weights = {name: float(x) for name, x in sorted(weights.items()) if x > 0}
        self._held_out, self._held_out_by = held_out, held_out_by
        self._config = config
        self._heads: LabelledHeads | None = None
        self._loss = create_class_loss(config, relevance, OUTPUTS)
        self.METRICS: Mapping[str, str] = {
            f"top1/{name}": f"Share of the held-out images whose {name} is guessed."
            for name in self._weights
        }

    @property
    def labelled(self) -> LabelledHeads:
        """The heads of the training split; there only after `prepare`."""
        assert self._heads is not None, "prepare() comes first"
        return self._heads

    def prepare(self, records: Mapping[str, Records]) -> None:
        """Finds the classes of each attribute, and holds some images out."""
        self._heads = create_heads(
            records["train"],
            self._weights,
            held_out=self._held_out,
            held_out_by=self._held_out_by,
            seed=self._config.seed,
        )

    def create_model(self) -> nnx.Module:
        """Returns the network; before `prepare`, one with a single class.

        That is enough for the embeddings, which do not depend on the classes.
        """
        num_outputs = 1 if self._heads is None else self._heads.num_outputs
        return network.create_model(
            self._config,
            num_outputs,
            outputs=self._loss.outputs,
            sub_centers=getattr(self._loss, "sub_centers", 1),
        )

    def create_sampler(
        self, records: Mapping[str, Records], *, shard: int, num_shards: int
    ) -> Sampler:
        """Returns a sampler of single images, an epoch at a time."""
        del records
        labelled = self.labelled
        return LabelledSampler(
            labelled.training,
            labelled.labels[labelled.training],
            seed=self._config.seed,
            shard=shard,
            num_shards=num_shards,
        )

    def objective(self) -> Objective:
        """Returns the weighted sum of the heads' losses, with their accuracies."""
        return AttributesObjective(self._loss, self.labelled.heads)

    def validate(
        self,
        outputs_fn: Callable[[np.ndarray], np.ndarray],
        reader: ImageReader,
        *,
        check: Callable[[], None],
    ) -> dict[str, float]:
        """Returns the accuracy of each head on the held-out images."""
        labelled = self.labelled

        def rate(outputs: np.ndarray, indices: np.ndarray) -> np.ndarray:
            right = [
                cross_entropy.is_in_top(
                    jnp.asarray(outputs[:, head.outputs]), jnp.asarray(labels), 1
                )
                for head, labels in zip(
                    labelled.heads, labelled.labels[indices].T, strict=True
                )
            ]
            return np.stack(right, axis=1)

        shares = mean_over_held_out(
            labelled.held_out,
            reader,
            outputs_fn,
            rate,
            self._config.evaluation.batch_size,
            num_columns=len(labelled.heads),
            check=check,
        )
        return dict(zip(self.METRICS, map(float, shares), strict=True))

    def health(self) -> None:
        """Returns no monitor."""
        return None

    def describe(self) -> dict[str, str]:
        """Returns the loss and the network's heads."""
        weights = ", ".join(f"{name} {x:g}" for name, x in self._weights.items())
        return {
            "Loss": f"{self._loss.describe()}, of each attribute by its weight",
            "Head": f"one per attribute: {weights}",
        }


def create_heads(
    records: Records,
    weights: Mapping[str, float],
    *,
    held_out: float,
    held_out_by: str,
    seed: int,
) -> LabelledHeads:
    """Returns the heads of a training split.

    Args:
      records: Records of the training split.
      weights: Weight of each attribute, above 0, by the name of its level or column.
      held_out: Share of the images that are held out.
      held_out_by: Level or column whose images are held out together; "" for none.
      seed: Seed of the draw of these images.

    Raises:
      ConfigError: An attribute is the same for all records, or nothing can be held out.
      DataError: The records have no attribute of a name, or one record lacks it.
    """
    heads, columns, start = [], [], 0
    for name, weight in weights.items():
        values = find_labels(records, name, _OPTION).values
        classes, labels = np.unique(values, return_inverse=True)
        if len(classes) < 2:
            raise ConfigError(
                f"{_OPTION} names {name}, which is the same for all records of "
                f"{records.name}, so that there is nothing to learn: give it the "
                "weight 0."
            )
        stop = start + len(classes)
        heads.append(Head(name=name, weight=weight, outputs=slice(start, stop)))
        columns.append(labels.reshape(-1).astype(np.int32))
        start = stop
    training, held_out_indices = _hold_out(records, held_out, held_out_by, seed)
    return LabelledHeads(
        heads=tuple(heads),
        labels=np.stack(columns, axis=1),
        training=training,
        held_out=held_out_indices,
    )


def _hold_out(
    records: Records, held_out: float, held_out_by: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices for training and held-out indices, ascending.

    Raises:
      ConfigError: All records have the same label of `held_out_by`.
      DataError: There is no such label, or a single record.
    """
    if not held_out_by:
        return hold_out(len(records), held_out, seed)
    option = "config.task.held_out_by"
    labels = find_labels(records, held_out_by, option).values
    groups = np.unique(labels)
    if len(groups) < 2:
        raise ConfigError(
            f"{option} names {held_out_by}, which is the same for all records of "
            f"{records.name}, so that none could be held out: name another."
        )
    is_held_out = np.isin(labels, groups[hold_out(len(groups), held_out, seed)[1]])
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


@dataclasses.dataclass(frozen=True)
class AttributesObjective:
    r"""Objective of single images, whose batch holds `labels [B, H]`.

    .. math::
      \sum_h w_h L(z_h, y_h)

    `L` is the loss of one head, `z_h` its slice of the outputs and `y_h` the class.

    Attributes:
      loss_fn: Loss of logits or cosines `[B, 1, K]` and `labels [B, 1]`.
      heads: The `H` heads.
    """

    loss_fn: losses.LossFn
    heads: tuple[Head, ...]

    def __call__(
        self, outputs: jax.Array, batch: Batch, *, step: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Returns the losses `[B]` of a batch, and loss and accuracy of each head."""
        total = jnp.zeros(len(outputs))
        metrics: Metrics = {}
        for column, head in enumerate(self.heads):
            logits = outputs[:, :, head.outputs]
            labels = batch["labels"][:, column : column + 1]
            head_losses = self.loss_fn(
                logits, {**batch, "labels": labels}, step=step, key=key
            )
            total += head.weight * head_losses
            right = cross_entropy.is_in_top(logits[:, 0], labels[:, 0], 1)
            metrics[f"head_loss/{head.name}"] = jnp.mean(head_losses)
            metrics[f"top1/{head.name}"] = jnp.mean(right)
        return total, metrics

    def remember(
        self, memory: Mapping[str, jax.Array], outputs: jax.Array, batch: Batch
    ) -> Mapping[str, jax.Array]:
        """Returns the memory of the loss after a batch."""
        return losses.update_memory(self.loss_fn, memory, outputs, batch)
