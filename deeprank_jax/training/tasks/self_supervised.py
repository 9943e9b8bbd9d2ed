"""Learning without labels: each image is told apart from all others by its views."""

from collections.abc import Callable, Mapping
import dataclasses

from flax import nnx
import jax
import ml_collections
import numpy as np

from deeprank_jax import losses
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import devices
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses import diagnostics
from deeprank_jax.losses.triplet import squared_distance
from deeprank_jax.models import HeadSizes
from deeprank_jax.models.layers import check_counts
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.sampling.view_sampler import ViewSampler
from deeprank_jax.training import network
from deeprank_jax.training.health import TrainingMonitor
from deeprank_jax.training.step import Batch, Metrics, Objective

# Augmentation that leaves an image alone on its own, and its values that are off.
_NO_CHANGE = {"mixing": None, "crop_area": 1.0}
_ADVICE = (
    "Try a lower config.optimizer.learning_rate, a larger config.batch_size or "
    "stronger config.data.augment."
)


class SelfSupervised:
    """Views of images without labels: the ranking network with a projection head.

    An image of a batch is drawn once or twice, as the loss needs it, and each of its
    views is augmented on its own. Labels, if there are any, serve the evaluation alone.

    References:
      Chen et al., A Simple Framework for Contrastive Learning of Visual
      Representations, 2020, https://arxiv.org/abs/2002.05709.
    """

    needs_records = False
    draws_triplets = False
    augments_alone = True
    METRICS: Mapping[str, str] = {}

    def __init__(
        self,
        *,
        head_layers: int = 2,
        head_width: int = 512,
        head_dim: int = 128,
        head_batch_norm: bool = True,
        config: ml_collections.ConfigDict,
        relevance: Relevance,
    ):
        """Creates the task.

        Args:
          head_layers: Number of linear maps of the projection head, which is left out
            of the embeddings.
          head_width: Width between two of them.
          head_dim: Length of a projection.
          head_batch_norm: True for BatchNorm before each ReLU of the head.
          config: Whole configuration.
          relevance: Relevance of the run, which the evaluation and a loss of one's own
            may use.

        Raises:
          ConfigError: The loss does not exist or is of another task, or augmentation,
            batch or network do not suit it.
          ValueError: A size of the head is below 1.
        """
        check_counts(head_layers=head_layers, head_width=head_width, head_dim=head_dim)
        self._head = HeadSizes(head_layers, head_width, head_dim, head_batch_norm)
        self._config = config
        self._loss = losses.create_loss(
            config.loss.to_dict(),
            relevance_fn=relevance.pairwise,
            min_relevance_gap=config.triplets.min_relevance_gap,
            axis_name=devices.DATA_AXIS,
        )
        if self._loss.outputs != "projections":
            raise ConfigError(
                f"config.loss.name={config.loss.name!r} takes {self._loss.outputs}, "
                'and config.task.name="self_supervised" gives projections of views: '
                "set --config.loss.name=nt_xent or instance_discrimination."
            )
        self._num_views: int = getattr(self._loss, "num_views", 2)
        _check_views(config, self._num_views)
        if config.model.ensemble:
            raise ConfigError(
                'config.model.ensemble is for config.task.name="ranking": set it to () '
                'for "self_supervised", which trains a single network.'
            )

    def prepare(self, records: Mapping[str, Records]) -> None:
        """Checks that there are images to tell apart.

        Raises:
          ConfigError: There is a single one.
        """
        if len(records["train"]) < 2:
            raise ConfigError(
                f'{records["train"].name} has a single image, and "self_supervised" '
                "tells images apart: give at least 2."
            )

    def create_model(self) -> nnx.Module:
        """Returns the ranking network with a projection head."""
        return network.create_model(self._config, None, head=self._head)

    def create_sampler(
        self, records: Mapping[str, Records], *, shard: int, num_shards: int
    ) -> Sampler:
        """Returns a sampler of all training images, an epoch at a time."""
        return ViewSampler(
            len(records["train"]),
            num_views=self._num_views,
            seed=self._config.seed,
            shard=shard,
            num_shards=num_shards,
        )

    def objective(self) -> Objective:
        """Returns the loss of views with its metrics."""
        return SelfSupervisedObjective(self._loss)

    def validate(
        self,
        outputs_fn: Callable[[np.ndarray], np.ndarray],
        reader: ImageReader,
        *,
        check: Callable[[], None],
    ) -> dict[str, float]:
        """Returns nothing: the evaluators measure embeddings."""
        del outputs_fn, reader, check
        return {}

    def health(self) -> TrainingMonitor:
        """Returns the monitor of collapse."""
        return TrainingMonitor(None, self._config.batch_size, advice=_ADVICE)

    def describe(self) -> dict[str, str]:
        """Returns the loss and the network's head."""
        widths = [self._head.width] * (self._head.num_layers - 1) + [self._head.dim]
        dim = self._config.model.embedding_dim
        return {
            "Loss": self._loss.describe(),
            "Head": (f"{dim} dimensions" if dim else "without a linear map")
            + f", in training alone a head of {' and '.join(map(str, widths))}",
        }


def _check_views(config: ml_collections.ConfigDict, num_views: int) -> None:
    """Checks that views of an image differ, and have others to be told apart from.

    Raises:
      ConfigError: No augmentation is on, or a batch has a single image.
    """
    augment = config.data.augment.to_dict()
    if all(
        value == _NO_CHANGE.get(x, 0) or x == "mixing" for x, value in augment.items()
    ):
        raise ConfigError(
            "config.data.augment is off, so that all views of an image are equal and "
            "nothing is to be learned: turn on, e.g., "
            "--config.data.augment.crop_area=0.3 "
            "--config.data.augment.color_jitter=0.4."
        )
    size = config.batch_size
    if num_views > 1 and size is not None and size // config.accumulate_steps < 2:
        parts = config.accumulate_steps
        raise ConfigError(
            f"config.batch_size={size}"
            + (f" in config.accumulate_steps={parts} parts" if parts > 1 else "")
            + f" leaves config.loss.name={config.loss.name!r} a single image, with "
            "no other to tell it from: give at least 2 in each part of a batch."
        )


@dataclasses.dataclass(frozen=True)
class SelfSupervisedObjective:
    """Objective of views, whose batch holds `instances [B, V]`, numbers of images.

    Attributes:
      loss_fn: Loss of projections `[B, V, D]` and `instances [B, V]`.
    """

    loss_fn: losses.LossFn

    def __call__(
        self, outputs: jax.Array, batch: Batch, *, step: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Returns the losses `[B]` of a batch, and metrics of its projections."""
        image_losses = self.loss_fn(outputs, batch, step=step, key=key)
        projections = jax.lax.stop_gradient(outputs)
        images = projections.reshape(-1, projections.shape[-1])
        metrics = {
            "mean_distance": diagnostics.mean_squared_distance(images),
            "effective_rank": diagnostics.effective_rank(images),
        }
        if outputs.shape[1] > 1:
            distances = squared_distance(projections[:, :1], projections[:, 1:])
            metrics["positive_distance"] = distances.mean()
        return image_losses, metrics

    def remember(
        self, memory: Mapping[str, jax.Array], outputs: jax.Array, batch: Batch
    ) -> Mapping[str, jax.Array]:
        """Returns the memory of the loss after a batch."""
        return losses.update_memory(self.loss_fn, memory, outputs, batch)
