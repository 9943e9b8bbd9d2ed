"""Deep ranking: triplets of images, and the hinge loss of their embeddings."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.losses import diagnostics
from deeprank_jax.losses.triplet import squared_distance
from deeprank_jax.relevance import Relevance
from deeprank_jax.training import step as step_lib


def make_ranking(loss_fn: losses.LossFn) -> step_lib.Objective:
    """Returns the objective of triplets; the batch holds their attributes.

    Args:
      loss_fn: of embeddings `[B, 3, D]` and attributes `[B, 3, A]`.
    """

    def objective(outputs, batch, *, step, key):
        triplet_losses = loss_fn(outputs, batch["attributes"], step=step, key=key)
        return triplet_losses, _ranking_metrics(triplet_losses, outputs)

    return objective


def _ranking_metrics(
    triplet_losses: jax.Array, embeddings: jax.Array
) -> step_lib.Metrics:
    """Returns what one device's share of the batch says about training."""
    embeddings = jax.lax.stop_gradient(embeddings)
    anchor, positive, negative = jnp.moveaxis(embeddings, 1, 0)
    images = embeddings.reshape(-1, embeddings.shape[-1])
    return {
        "active_share": jnp.mean((triplet_losses > 0).astype(jnp.float32)),
        "positive_distance": jnp.mean(squared_distance(anchor, positive)),
        "negative_distance": jnp.mean(squared_distance(anchor, negative)),
        "mean_distance": diagnostics.mean_squared_distance(images),
        "effective_rank": diagnostics.effective_rank(images),
    }


def check_compiles(
    config: ml_collections.ConfigDict, relevance: Relevance, attributes: np.ndarray
) -> None:
    """Checks that a relevance can be a part of the step, if the loss asks it.

    Raises:
      ValueError: it cannot, as one of the user's own that calls NumPy.
    """
    sides = jnp.zeros(
        (2, 3, attributes.shape[1]), devices.for_devices(attributes).dtype
    )
    try:
        loss_fn = make_run_loss(config, relevance, axis_name=None)
        loss_fn = functools.partial(loss_fn, step=0, key=jax.random.key(0))
        jax.eval_shape(loss_fn, jnp.zeros((2, 3, 4)), sides)
    except (TypeError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"config.relevance.name={config.relevance.name!r} cannot be compiled "
            f"({reason}): write it with the functions of `a.__array_namespace__()`, "
            'or set config.loss.negatives="sampled" and config.loss.symmetric=False.'
        ) from error


def make_run_loss(
    config: ml_collections.ConfigDict,
    relevance: Relevance,
    *,
    axis_name: str | None = devices.DATA_AXIS,
) -> losses.LossFn:
    """Returns the loss of a batch's embeddings and attributes.

    Args:
      config: the whole configuration.
      relevance: of the run.
      axis_name: of the devices that search each other's images; None for one alone.
    """
    return losses.make_loss(
        **config.loss,
        relevance_fn=relevance.pairwise,
        min_relevance_gap=config.sampler.min_relevance_gap,
        axis_name=axis_name,
    )


def _loss(config: ml_collections.ConfigDict) -> str:
    loss = config.loss
    if config.task == "classification":
        return (
            f"cross entropy, label smoothing {config.classification.label_smoothing:g}"
        )
    kind = "soft margin" if loss.soft_margin else f"hinge, margin {loss.margin:g}"
    return f"{kind}, {loss.negatives} negatives"
