"""Classification, the first of the paper's two stages.

Some images of the training split are held out for validation, since the classes of
the other splits may be others. The trunk's features of any image are an embedding like
that of a ranking network, and are evaluated in the same way.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeprank_jax import losses, models
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import devices
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses import cross_entropy
from deeprank_jax.losses.cross_entropy import TOP
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling.labelled_sampler import LabelledSampler, hold_out
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.training import network
from deeprank_jax.training.held_out import mean_over_held_out
from deeprank_jax.training.step import Batch, Metrics, Objective

# Kinds of network output that a loss of this task takes.
OUTPUTS = ("logits", "cosines", "code_cosines", "logits_and_features")
FEATURES = ("trunk", "embedding")
_HEADS = {
    "cosines": "a vector per class",
    "code_cosines": "a fixed binary code per class",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """Classes of a training split, and the division of its images.

    Attributes:
      names: Names of the classes, by their numbers.
      labels: `[N]` int32, class of each record, from 0.
      training: `[T]` indices of the records to train on.
      held_out: `[M]` indices of the other records.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    training: np.ndarray
    held_out: np.ndarray


class Classification:
    """Single images, each with a class: the trunk and a logit for each class."""

    needs_records = True
    draws_triplets = False
    augments_alone = False
    METRICS: Mapping[str, str] = {
        "top1": "Share of the held-out images whose first guess is right.",
        "top5": "Share of the held-out images with the class among five guesses.",
    }

    def __init__(
        self,
        *,
        level: int = -1,
        held_out: float = 0.1,
        features: str = "trunk",
        config: ml_collections.ConfigDict,
        relevance: Relevance,
    ):
        """Creates the task.

        Args:
          level: Level of the labels; -1 is the finest.
          held_out: Share of the training images that are kept for validation.
          features: Numbers that are compared with the classes: the `"trunk"`'s
            features, which are then the embedding, or the `"embedding"` of a ranking
            network, for losses on cosines.
          config: Whole configuration.
          relevance: Relevance of the run, which a loss may use.

        Raises:
          ConfigError: The loss does not exist, takes embeddings or not those that
            `features` gives, or compares an ensemble's.
          ValueError: The share is not between 0 and 1, or no such features exist.
        """
        if features not in FEATURES:
            raise ValueError(
                f"features must be one of {', '.join(FEATURES)}, got {features!r}."
            )
        if not 0 < held_out < 1:
            raise ValueError(f"held_out must be above 0 and below 1, got {held_out}.")
        self._config = config
        self._level = level
        self._held_out = held_out
        self._classes: Classes | None = None
        self._loss = create_class_loss(config, relevance, OUTPUTS)
        self._on_embedding = features == "embedding"
        self._sub_centers: int = getattr(self._loss, "sub_centers", 1)
        self._check_embedding()

    def _check_embedding(self) -> None:
        """Checks the loss and the network of those that compare embeddings.

        Raises:
          ConfigError: The loss takes no cosines, or the network is an ensemble.
        """
        name, outputs = self._config.loss.name, self._loss.outputs
        if self._on_embedding and not outputs.endswith("cosines"):
            raise ConfigError(
                f"config.loss.name={name!r} takes the logits of features of any "
                'length, and config.task.features="embedding" gives cosines of unit '
                "vectors: set --config.loss.name=normface, cosface or arcface, or "
                "--config.task.features=trunk."
            )
        compares = self._on_embedding or outputs == "code_cosines"
        if compares and self._config.model.ensemble:
            raise ConfigError(
                'config.model.ensemble is for config.task.name="ranking": set it to () '
                f"for config.loss.name={name!r}, which trains a single network."
            )

    @property
    def classes(self) -> Classes:
        """The classes of the training split; there only after `prepare`."""
        assert self._classes is not None, "prepare() comes first"
        return self._classes

    def prepare(self, records: Mapping[str, Records]) -> None:
        """Finds the classes of the training split, and holds some images out."""
        self._classes = create_classes(
            records["train"],
            level=self._level,
            held_out=self._held_out,
            seed=self._config.seed,
        )

    def create_model(self) -> nnx.Module:
        """Returns the classifier; before `prepare`, one with a single class.

        That is enough for the embeddings, which do not depend on the classes.
        """
        num_classes = 1 if self._classes is None else len(self._classes.names)
        if self._on_embedding and self._loss.outputs == "cosines":
            head = models.ClassCount(num_classes, self._sub_centers)
            return network.create_model(self._config, None, head=head)
        return network.create_model(
            self._config,
            num_classes,
            outputs=self._loss.outputs,
            sub_centers=self._sub_centers,
        )

    def create_sampler(
        self, records: Mapping[str, Records], *, shard: int, num_shards: int
    ) -> Sampler:
        """Returns a sampler of single images, an epoch at a time."""
        del records
        classes = self.classes
        return LabelledSampler(
            classes.training,
            classes.labels[classes.training],
            seed=self._config.seed,
            shard=shard,
            num_shards=num_shards,
        )

    def objective(self) -> Objective:
        """Returns the loss of single images with its accuracies."""
        has_features = self._loss.outputs == "logits_and_features"
        num_classes = len(self.classes.names) if has_features else None
        return ClassificationObjective(self._loss, num_classes)

    def validate(
        self,
        outputs_fn: Callable[[np.ndarray], np.ndarray],
        reader: ImageReader,
        *,
        check: Callable[[], None],
    ) -> dict[str, float]:
        """Returns the accuracies on the held-out images."""
        batch_size = self._config.evaluation.batch_size
        return measure(self.classes, reader, outputs_fn, batch_size, check=check)

    def health(self) -> None:
        """Returns no monitor."""
        return None

    def describe(self) -> dict[str, str]:
        """Returns the loss and the network's head."""
        head = _HEADS.get(self._loss.outputs, "softmax")
        return {"Loss": self._loss.describe(), "Head": head}


def create_class_loss(
    config: ml_collections.ConfigDict, relevance: Relevance, outputs: Sequence[str]
) -> losses.Loss:
    """Returns the loss of classes that a config names.

    Args:
      config: Whole configuration.
      relevance: Relevance of the run, which a loss may use.
      outputs: Kinds of network output that the task gives.

    Raises:
      ConfigError: The loss does not exist, or takes another kind.
    """
    loss = losses.create_loss(
        config.loss.to_dict(),
        relevance_fn=relevance.pairwise,
        min_relevance_gap=config.triplets.min_relevance_gap,
        axis_name=devices.DATA_AXIS,
    )
    if loss.outputs not in outputs:
        raise ConfigError(
            f"config.loss.name={config.loss.name!r} takes {loss.outputs}, and "
            f'config.task.name="{config.task.name}" gives logits or cosines: set '
            "--config.loss.name=cross_entropy, arcface or another of those."
        )
    return loss


def create_classes(
    records: Records, *, level: int, held_out: float, seed: int
) -> Classes:
    """Returns the classes of a training split.

    Args:
      records: Records of the training split.
      level: Level of the labels; -1 is the finest.
      held_out: Share of the images that are held out.
      seed: Seed of the draw of these images.

    Raises:
      ConfigError: No such level exists, it has fewer than two classes, or nothing can
        be held out.
    """
    names = records.level_titles
    if not -len(names) <= level < len(names):
        raise ConfigError(
            f"config.task.level={level} is not one of the records' {len(names)} levels "
            f"({', '.join(names)}): choose one from {-len(names)} to {len(names) - 1}."
        )
    class_labels, labels = np.unique(records.labels[:, level], return_inverse=True)
    if len(class_labels) < 2:
        raise ConfigError(
            f"{records.name} holds {len(class_labels)} class at the level "
            f"{names[level]}, and classification takes two: choose another "
            "config.task.level."
        )
    training, held_out_indices = hold_out(len(records), held_out, seed)
    return Classes(
        names=tuple(str(label) for label in class_labels),
        labels=labels.reshape(-1).astype(np.int32),
        training=training,
        held_out=held_out_indices,
    )


@dataclasses.dataclass(frozen=True)
class ClassificationObjective:
    """Objective of single images, whose batch holds `labels [B, 1]`.

    Attributes:
      loss_fn: Loss of logits or cosines `[B, 1, K]`, maybe followed by the features,
        and `labels [B, 1]`.
      num_classes: Number of classes `K`; None if no features follow.
    """

    loss_fn: losses.LossFn
    num_classes: int | None

    def __call__(
        self, outputs: jax.Array, batch: Batch, *, step: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Returns the losses `[B]` of a batch, and its accuracies."""
        image_losses = self.loss_fn(outputs, batch, step=step, key=key)
        logits, labels = outputs[:, 0, : self.num_classes], batch["labels"][:, 0]
        metrics = {
            f"top{k}": jnp.mean(cross_entropy.is_in_top(logits, labels, k)) for k in TOP
        }
        return image_losses, metrics

    def remember(
        self, memory: Mapping[str, jax.Array], outputs: jax.Array, batch: Batch
    ) -> Mapping[str, jax.Array]:
        """Returns the memory of the loss after a batch."""
        return losses.update_memory(self.loss_fn, memory, outputs, batch)


def measure(
    classes: Classes,
    reader: ImageReader,
    logits_fn: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
    *,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Returns the accuracy of the first guess, and of the first five.

    Each process classifies its share of the images, and all get the whole result.

    Args:
      classes: Classes, with the held-out images.
      reader: Images of the training split.
      logits_fn: Function from uint8 images `[B, H, W, 3]` to logits or cosines
        `[B, num_classes]`, maybe followed by the features.
      batch_size: Images per batch.
      check: Function that is called for each batch, and may raise to end early.

    Returns:
      `top1` and `top5`, shares of the readable images; NaN without any.
    """
    num_classes = len(classes.names)

    def rate(outputs: np.ndarray, indices: np.ndarray) -> np.ndarray:
        logits = jnp.asarray(outputs[:, :num_classes])
        labels = jnp.asarray(classes.labels[indices])
        right = [cross_entropy.is_in_top(logits, labels, k) for k in TOP]
        return np.stack(right, axis=1)

    shares = mean_over_held_out(
        classes.held_out,
        reader,
        logits_fn,
        rate,
        batch_size,
        num_columns=len(TOP),
        check=check,
    )
    return {f"top{k}": float(share) for k, share in zip(TOP, shares, strict=True)}
