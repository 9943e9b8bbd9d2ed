"""Learning from pairs of images that are similar or not, without any class."""

from collections.abc import Callable, Mapping
import dataclasses

from absl import logging
from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeprank_jax import losses
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses import diagnostics
from deeprank_jax.losses.triplet import squared_distance
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import pair_file
from deeprank_jax.sampling.pair_sampler import ListedPairs, PairSampler
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.training import network
from deeprank_jax.training.health import TrainingMonitor
from deeprank_jax.training.step import Batch, Mean, Metrics, Objective

_ADVICE = (
    "Try a lower config.optimizer.learning_rate, a larger config.loss.margin, or list "
    "more pairs that are not similar."
)


class Pairs:
    """The pairs of a file: similar images lie near to each other, different ones apart.

    Labels, if there are any, serve the evaluation alone.
    """

    # What `config.batch_size` counts.
    unit = "pairs"
    images_per_group = 2
    needs_records = False
    draws_triplets = False
    augments_alone = False
    METRICS: Mapping[str, str] = {}

    def __init__(
        self,
        *,
        file: str,
        config: ml_collections.ConfigDict,
        relevance: Relevance,
    ):
        """Creates the task.

        Args:
          file: Path of a file with the columns `a,b,similar`, of which the pairs of
            training images are used; `{split}` in it stands for `train`.
          config: Whole configuration.
          relevance: Relevance of the run, which a loss of one's own may use.

        Raises:
          ConfigError: The loss does not exist or is of another task, or augmentation
            or network do not suit it.
          ValueError: There is no file.
        """
        if not file:
            raise ValueError(
                "file must be the path of a file of pairs with the columns "
                "a,b,similar, e.g. --config.task.file=pairs.csv."
            )
        self._config = config
        self._pairs = ""
        self._loss = losses.create_loss(
            config.loss.to_dict(),
            relevance_fn=relevance.pairwise,
            min_relevance_gap=config.triplets.min_relevance_gap,
            axis_name=None,
        )
        if self._loss.outputs != "pairs":
            raise ConfigError(
                f"config.loss.name={config.loss.name!r} takes {self._loss.outputs}, "
                'and config.task.name="pairs" gives pairs: set '
                "--config.loss.name=pair_contrastive."
            )
        if config.data.augment.mixing:
            raise ConfigError(
                f"config.data.augment.mixing={config.data.augment.mixing} would show a "
                'part of one image of a pair in the other: set it to 0 for "pairs".'
            )
        if config.model.ensemble:
            raise ConfigError(
                'config.model.ensemble is for config.task.name="ranking": set it to () '
                'for "pairs", which trains a single network.'
            )

    @staticmethod
    def count_groups(
        config: ml_collections.ConfigDict, records: Mapping[str, Records]
    ) -> int:
        """Returns the number of pairs of an epoch, 0 without a file.

        Args:
          config: Whole configuration.
          records: Records of each split.

        Raises:
          DataError: The file cannot be used.
        """
        if not config.task.get("file"):
            return 0
        return len(_read_training_pairs(config, records).indices)

    def prepare(self, records: Mapping[str, Records]) -> None:
        """Takes the records, which need no check."""
        del records

    def create_model(self) -> nnx.Module:
        """Returns the ranking network."""
        return network.create_model(self._config, None)

    def create_sampler(
        self, records: Mapping[str, Records], *, shard: int, num_shards: int
    ) -> Sampler:
        """Returns a sampler of the pairs of training images, an epoch at a time.

        Raises:
          DataError: The file cannot be used, or has no similar or no different pair of
            training images.
        """
        pairs = _read_training_pairs(self._config, records)
        pairs.check_kinds(records["train"].name)
        self._pairs = pairs.describe()
        logging.info("%s: %s.", pairs.path, self._pairs)
        return PairSampler(
            pairs, seed=self._config.seed, shard=shard, num_shards=num_shards
        )

    def objective(self) -> Objective:
        """Returns the loss of pairs with its metrics."""
        return PairObjective(self._loss)

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
        """Returns the loss, the pairs and the network's head."""
        dim = self._config.model.embedding_dim
        lines = {
            "Loss": self._loss.describe(),
            "Head": f"{dim} dimensions" if dim else "without a linear map",
        }
        return lines | ({"Pairs": self._pairs} if self._pairs else {})


def _read_training_pairs(
    config: ml_collections.ConfigDict, records: Mapping[str, Records]
) -> ListedPairs:
    """Returns the listed pairs of training images.

    Raises:
      DataError: The file cannot be used.
    """
    return pair_file.read_pairs(
        config.task.file.replace("{split}", "train"),
        records["train"],
        others=[part for split, part in records.items() if split != "train"],
        root=config.data.dir,
    )


@dataclasses.dataclass(frozen=True)
class PairObjective:
    """Objective of pairs, whose batch holds `is_similar [B]`.

    Attributes:
      loss_fn: Loss of embeddings `[B, 2, D]` and `is_similar [B]`.
    """

    loss_fn: losses.LossFn

    def __call__(
        self, outputs: jax.Array, batch: Batch, *, step: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Returns the losses `[B]` of a batch, and metrics of its embeddings."""
        pair_losses = self.loss_fn(outputs, batch, step=step, key=key)
        embeddings = jax.lax.stop_gradient(outputs)
        images = embeddings.reshape(-1, embeddings.shape[-1])
        distances = squared_distance(embeddings[:, 0], embeddings[:, 1])
        is_similar = batch["is_similar"] > 0
        return pair_losses, {
            "positive_distance": _mean_where(distances, is_similar),
            "negative_distance": _mean_where(distances, ~is_similar),
            "mean_distance": diagnostics.mean_squared_distance(images),
            "effective_rank": diagnostics.effective_rank(images),
        }

    def remember(
        self, memory: Mapping[str, jax.Array], outputs: jax.Array, batch: Batch
    ) -> Mapping[str, jax.Array]:
        """Returns the memory of the loss after a batch."""
        return losses.update_memory(self.loss_fn, memory, outputs, batch)


def _mean_where(values: jax.Array, mask: jax.Array) -> Mean:
    """Returns the mean of the values `[B]` of a mask, which may hold for none."""
    return Mean(jnp.sum(jnp.where(mask, values, 0.0)), jnp.sum(mask))
