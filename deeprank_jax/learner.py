"""What learns, and what for: network, optimizer and loss, as the config has them."""

import functools
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeprank_jax import (
    classification,
    init_from,
    losses,
    models,
    optimizers,
    parallel,
    train_step,
)
from deeprank_jax.models.weights import load_weights
from deeprank_jax.relevance import Relevance


def create_objective(
    config: ml_collections.ConfigDict, relevance: Relevance
) -> train_step.Objective:
    """Returns what the network is trained for."""
    if config.task == "classification":
        return train_step.make_classification(config.classification.label_smoothing)
    return train_step.make_ranking(make_run_loss(config, relevance))


def create_network(
    config: ml_collections.ConfigDict, classes: classification.Classes | None = None
) -> tuple[Any, Any, Any]:
    """Returns the model's structure, its optimizer and the state to start from.

    Args:
      config: the whole configuration.
      classes: which the network tells, if it is a classifier.

    Raises:
      ValueError: the config asks for a network that cannot be, or for weights that do
        not fit it.
      CheckpointError: `config.init_from` cannot be read or is of another network.
    """
    num_classes = None if classes is None else len(classes.names)
    model = models.compiled(lambda: create_model(config, num_classes))
    weights = config.model.weights
    report = load_weights(
        model,
        weights=weights,
        layout=config.model.weights_layout,
        trunk=config.model.trunk.name,
    )
    if weights:
        logging.info("%s", report)
    schedule = optimizers.make_schedule(
        **config.schedule,
        learning_rate=config.optimizer.learning_rate,
        num_steps=config.num_steps,
    )
    tx = optimizers.create_optimizer(config.optimizer, schedule)
    graphdef, state = train_step.create_train_state(model, tx)
    if config.init_from:
        state = init_from.load_state(
            state, config.init_from, config.model.trunk.to_dict()
        )
    return graphdef, tx, state


def create_model(config: ml_collections.ConfigDict, num_classes: int | None) -> Any:
    """Returns the network that a config describes, with the weights it draws.

    Args:
      config: the whole configuration.
      num_classes: which the network tells, if it is a classifier.

    Raises:
      ValueError: there can be no such network.
    """
    options = config.model.to_dict()
    for other in ("weights", "weights_layout", "remat"):
        del options[other]
    if config.optimizer.trunk_scale == 0.0:
        options["batch_norm"] = "frozen"
    options.update(
        image_size=config.data.image_size,
        axis_name=parallel.DATA_AXIS,
        seed=config.seed,
    )
    if num_classes is None:
        return models.create_model(**options)
    del options["embedding_dim"], options["paths"]
    return models.create_classifier(**options, num_classes=num_classes)


def check_compiles(
    config: ml_collections.ConfigDict, relevance: Relevance, attributes: np.ndarray
) -> None:
    """Checks that a relevance can be a part of the step, if the loss asks it.

    Raises:
      ValueError: it cannot, as one of the user's own that calls NumPy.
    """
    sides = jnp.zeros(
        (2, 3, attributes.shape[1]), parallel.for_devices(attributes).dtype
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
    axis_name: str | None = parallel.DATA_AXIS,
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
