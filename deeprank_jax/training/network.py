"""Network and optimizer of a config."""

from collections.abc import Callable

from absl import logging
from flax import nnx
import ml_collections
import optax

from deeprank_jax import config as config_lib
from deeprank_jax import models
from deeprank_jax.distributed import devices
from deeprank_jax.models.pretrained.weights import load_weights
from deeprank_jax.training import init_from, optimizers
from deeprank_jax.training import step as step_lib


def create_network(
    config: ml_collections.ConfigDict, create: Callable[[], nnx.Module]
) -> tuple[nnx.GraphDef, optax.GradientTransformation, step_lib.TrainState]:
    """Returns the model's structure, its optimizer and the state to start from.

    Args:
      config: Whole configuration.
      create: Function that returns the network with random weights,
        `Task.create_model`.

    Raises:
      ConfigError: The config asks for a network that cannot exist, or for weights that
        do not fit it.
      CheckpointError: `config.init_from` cannot be read or is of another network.
    """
    model = models.create_abstract(create)
    weights = config.model.weights
    report = load_weights(
        model,
        weights=weights,
        layout=config.model.weights_layout,
        trunk=config.model.trunk.name,
    )
    if weights:
        logging.debug("%s", report)
    model = models.draw_missing(model, create)
    schedule = optimizers.make_schedule(
        **config_lib.resolve_config(config).schedule,
        learning_rate=config.optimizer.learning_rate,
        num_steps=config.num_steps,
    )
    tx = optimizers.create_optimizer(
        config.optimizer, schedule, has_gem=_has_gem(config)
    )
    graphdef, state = step_lib.create_train_state(
        model, tx, averages=config.optimizer.ema_decay > 0
    )
    if config.init_from:
        state = init_from.load_state(
            state, config.init_from, config.model.trunk.to_dict()
        )
    return graphdef, tx, state


def trunk_names(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the names of the trunks that a config trains, the first one's first.

    Args:
      config: Whole configuration.
    """
    # A classifier has no ensemble.
    is_classifier = config.task.name in ("classification", "attributes")
    others = () if is_classifier else config.model.ensemble
    return [config.model.trunk.name, *(x["trunk"]["name"] for x in others)]


def _has_gem(config: ml_collections.ConfigDict) -> bool:
    """Returns whether a trunk of the network pools with learned powers."""
    trunks = (config.model.trunk, *(x["trunk"] for x in config.model.ensemble))
    return any(trunk.get("pooling") == "gem" for trunk in trunks)


def create_model(
    config: ml_collections.ConfigDict,
    num_classes: int | None,
    *,
    outputs: str = "logits",
    sub_centers: int = 1,
    head: models.Head | None = None,
) -> nnx.Module:
    """Returns the network that a config describes, with random weights.

    Args:
      config: Whole configuration.
      num_classes: Number of a classifier's classes; None for a ranking network.
      outputs: Kind of a classifier's output, as `Classifier` has them, or
        `"code_cosines"` of a ranking network and a code per class.
      sub_centers: Number of vectors of a class, for a classifier's `"cosines"`.
      head: Sizes of a head of a ranking network in training, or number of classes with
        which its embeddings are compared; None for none.

    Raises:
      ConfigError: Such a network cannot exist.
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
        return models.create_model(**options, head=head)
    if outputs == "code_cosines":
        return models.create_model(**options, head=num_classes)
    for ranking_only in (
        "embedding_dim",
        "embedding_norm",
        "paths",
        "embed_shift",
        "embed_flip",
        "ensemble",
    ):
        del options[ranking_only]
    return models.create_classifier(
        **options, num_classes=num_classes, outputs=outputs, sub_centers=sub_centers
    )
