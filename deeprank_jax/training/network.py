"""What learns, and what for: network, optimizer and loss, as the config has them."""

from typing import Any

from absl import logging
import ml_collections

from deeprank_jax import models
from deeprank_jax.distributed import devices
from deeprank_jax.models.pretrained.weights import load_weights
from deeprank_jax.training import init_from, optimizers
from deeprank_jax.training import step as step_lib
from deeprank_jax.training.tasks import classification


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
    model = models.create_jitted(lambda: create_model(config, num_classes))
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
    graphdef, state = step_lib.create_train_state(model, tx)
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
        axis_name=devices.DATA_AXIS,
        seed=config.seed,
    )
    if num_classes is None:
        return models.create_model(**options)
    del options["embedding_dim"], options["paths"]
    return models.create_classifier(**options, num_classes=num_classes)
