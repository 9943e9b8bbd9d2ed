"""Deep ranking: triplets of images, and a loss of their embeddings."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools

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
from deeprank_jax.losses import diagnostics
from deeprank_jax.losses.memory import remember
from deeprank_jax.losses.triplet import squared_distance
from deeprank_jax.registry import config_keys
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import create
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.training import network
from deeprank_jax.training.health import TrainingMonitor
from deeprank_jax.training.step import Batch, Metrics, Objective


class Ranking:
    """Triplets: the anchor lies nearer to the positive than to the negative."""

    needs_records = False
    draws_triplets = True
    augments_alone = False
    METRICS: Mapping[str, str] = {}

    def __init__(self, *, config: ml_collections.ConfigDict, relevance: Relevance):
        """Creates the task.

        Args:
          config: Whole configuration.
          relevance: Relevance of the run.

        Raises:
          ConfigError: The loss does not exist, or takes no embeddings.
        """
        self._config = config
        self._relevance = relevance
        create.check_sampler(config)
        self._loss = create_ranking_loss(config, relevance.pairwise)
        if self._loss.outputs != "embeddings":
            raise ConfigError(
                f"config.loss.name={config.loss.name!r} takes {self._loss.outputs}, "
                'and config.task.name="ranking" gives embeddings: choose another loss, '
                'e.g. "triplet_hinge".'
            )

    def prepare(self, records: Mapping[str, Records]) -> None:
        """Checks that the relevance can be compiled, if the loss calls it."""
        check_compiles(self._config, self._relevance, records["train"].attributes)

    def create_model(self) -> nnx.Module:
        """Returns the ranking network."""
        return network.create_model(self._config, None)

    def create_sampler(
        self, records: Mapping[str, Records], *, shard: int, num_shards: int
    ) -> Sampler:
        """Returns the sampler of `config.sampler`."""
        others = [part for split, part in records.items() if split != "train"]
        return create.create_sampler(
            self._config,
            records["train"],
            self._relevance,
            others,
            shard=shard,
            num_shards=num_shards,
        )

    def objective(self) -> Objective:
        """Returns the loss of triplets with its metrics."""
        size = create.group_size(self._config)
        return RankingObjective(self._loss, size["positives_per_anchor"])

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
        """Returns the monitor of collapse and of idle triplets."""
        margin = getattr(self._loss, "margin", None)
        return TrainingMonitor(margin, self._config.batch_size)

    def describe(self) -> dict[str, str]:
        """Returns the loss with its negatives, and the network's head."""
        section, miner = self._config.loss, ""
        if "miner" in losses.LOSSES.options(section.name):
            miner = section.get("miner", {}).get("name", "semi_hard")
        model, dim = self._config.model, self._config.model.embedding_dim
        noun = "path" if len(model.paths) == 1 else "paths"
        return {
            "Loss": self._loss.describe() + (f", {miner} negatives" if miner else ""),
            "Head": f"{len(model.paths)} low-resolution {noun}, "
            + (f"{dim} dimensions" if dim else "without a linear map")
            + "".join(
                f"; beside it {other['trunk']['name']}, {other['embedding_dim']} "
                "dimensions"
                for other in model.ensemble
            ),
        }


def create_ranking_loss(
    config: ml_collections.ConfigDict,
    relevance_fn: losses.RelevanceFn,
    *,
    axis_name: str | None = devices.DATA_AXIS,
) -> losses.Loss:
    """Creates the loss of a batch's embeddings and attributes.

    Args:
      config: Whole configuration.
      relevance_fn: `Relevance.pairwise` of the run.
      axis_name: Name of the axis of devices that search each other's images; None for
        one device alone.

    Raises:
      ConfigError: No such loss or miner exists, or an option does not fit.
    """
    keys = {"min_relevance_gap": "config.triplets.min_relevance_gap"}
    keys |= {name: f"config.sampler.{name}" for name in create.GROUP_SIZE}
    with config_keys(keys):
        loss = losses.create_loss(
            config.loss.to_dict(),
            relevance_fn=relevance_fn,
            min_relevance_gap=config.triplets.min_relevance_gap,
            axis_name=axis_name,
            **create.group_size(config),
        )
    if not config.model.ensemble:
        return loss
    other_dims = models.embedding_dims(config.model.ensemble)
    return losses.EachNetwork(loss, other_dims=other_dims)


@dataclasses.dataclass(frozen=True)
class RankingObjective:
    """Objective of groups, whose batch holds their attributes.

    Attributes:
      loss_fn: Loss of embeddings `[B, n, D]` and `attributes [B, n, A]`.
      positives_per_anchor: Number of positives in a group.
    """

    loss_fn: losses.LossFn
    positives_per_anchor: int = 1

    def __call__(
        self, outputs: jax.Array, batch: Batch, *, step: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Returns the losses `[B]` of a batch, and metrics of its embeddings."""
        group_losses = self.loss_fn(outputs, batch, step=step, key=key)
        parts = [outputs]
        if isinstance(self.loss_fn, losses.EachNetwork):
            parts = self.loss_fn.split(outputs)
        return group_losses, _ranking_metrics(
            group_losses, outputs, parts, self.positives_per_anchor
        )

    def remember(
        self, memory: Mapping[str, jax.Array], outputs: jax.Array, batch: Batch
    ) -> Mapping[str, jax.Array]:
        """Returns the memory of embeddings after a batch."""
        return remember(memory, outputs, batch["attributes"], devices.DATA_AXIS)


def _ranking_metrics(
    group_losses: jax.Array,
    embeddings: jax.Array,
    parts: Sequence[jax.Array],
    positives_per_anchor: int,
) -> Metrics:
    """Returns the training metrics of one device's share of the batch.

    Args:
      group_losses: `[B]` losses.
      embeddings: `[B, n, D]` unit vectors.
      parts: The same of each network; the one that is nearest to a collapse counts.
      positives_per_anchor: Number of positives in a group.
    """
    embeddings = jax.lax.stop_gradient(embeddings)
    images = [jax.lax.stop_gradient(x.reshape(-1, x.shape[-1])) for x in parts]
    distances = squared_distance(embeddings[:, :1], embeddings[:, 1:])
    metrics = {
        "active_share": jnp.mean((group_losses > 0).astype(jnp.float32)),
        "positive_distance": jnp.mean(distances[:, :positives_per_anchor]),
        "mean_distance": _least(diagnostics.mean_squared_distance, images),
        "effective_rank": _least(diagnostics.effective_rank, images),
    }
    if distances.shape[1] > positives_per_anchor:
        negatives = distances[:, positives_per_anchor:]
        metrics["negative_distance"] = jnp.mean(negatives)
    return metrics


def _least(
    measure: Callable[[jax.Array], jax.Array], images: Sequence[jax.Array]
) -> jax.Array:
    """Returns the least of the measurements of embeddings `[N, D]`."""
    return functools.reduce(jnp.minimum, map(measure, images))


def check_compiles(
    config: ml_collections.ConfigDict, relevance: Relevance, attributes: np.ndarray
) -> None:
    """Checks that the loss can be compiled, and the relevance if the loss calls it.

    Args:
      config: Whole configuration.
      relevance: Relevance of the run.
      attributes: `[N, A]` attributes of the training records.

    Raises:
      ConfigError: The relevance cannot be compiled, e.g. one of the user's own that
        calls NumPy, or the loss does not return one value per group.
    """
    num_images = 1 + sum(create.group_size(config).values())
    dim = 4 + sum(models.embedding_dims(config.model.ensemble))
    sides = jnp.zeros(
        (2, num_images, attributes.shape[1]), devices.for_devices(attributes).dtype
    )

    def traced(a: jax.Array, b: jax.Array) -> jax.Array:
        try:
            return relevance.pairwise(a, b)
        except (TypeError, AttributeError, IndexError) as error:
            raise _CannotTraceError from error

    loss = create_ranking_loss(config, traced, axis_name=None)
    loss_fn = functools.partial(loss, step=0, key=jax.random.key(0))
    try:
        losses_shape = jax.eval_shape(
            loss_fn,
            jnp.zeros((2, num_images, dim)),
            {"attributes": sides, "teacher": jnp.zeros((2, num_images, 4))},
        ).shape
    except _CannotTraceError as error:
        reason = str(error.__cause__).splitlines()[0]
        raise ConfigError(
            f"config.relevance.name={config.relevance.name!r} cannot be compiled "
            f"({reason}): write it with the functions of `a.__array_namespace__()`, "
            "or set --config.loss.miner=sampled and --config.loss.symmetric=false."
        ) from error
    if losses_shape != (2,):
        raise ConfigError(
            f"config.loss.name={config.loss.name!r} gave the shape {losses_shape} for "
            "2 groups; a loss returns [B], one value per group."
        )


class _CannotTraceError(Exception):
    """A relevance cannot be traced by JAX."""
