"""Networks of an ensemble beside the first, created from their options.

They start from random parameters, whatever the first one's are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.errors import ConfigError
from deeprank_jax.models import layers
from deeprank_jax.models.multiscale import MultiScale
from deeprank_jax.models.trunks.base import Trunk
from deeprank_jax.registry import config_keys

_SECTION = "config.model.ensemble"
_NEEDED = ("trunk", "embedding_dim")
_OPTIONS = (*_NEEDED, "paths", "subsample")


def create_others(
    ensemble: Sequence[Mapping[str, Any]],
    create_trunk: Callable[..., Trunk],
    *,
    image_size: int,
    dtype: jnp.dtype,
    seed: int,
    embedding_norm: bool = False,
    axis_name: str | None = None,
) -> list[tuple[int, MultiScale]]:
    """Returns the networks, each with the factor by which its images are smaller.

    Args:
      ensemble: Options of each network: `trunk`, `embedding_dim`, and optionally
        `paths` and `subsample`, the factor.
      create_trunk: Function of a trunk's options, the size of its images,
        `batch_norm` and `rngs`.
      image_size: Height and width of the images of the ensemble, in pixels.
      dtype: Type that the paths compute in.
      seed: Seed of the initial parameters; those of the first network do not depend on
        the ensemble.
      embedding_norm: True for BatchNorm of each network's embedding, as of the first.
      axis_name: Name of the mapped axis over which it averages, if any.

    Raises:
      ConfigError: An option is missing, unknown or out of its range.
    """
    key = jax.random.key(seed)
    return [
        _create_other(
            options,
            f"{_SECTION}[{i}]",
            create_trunk,
            image_size=image_size,
            dtype=dtype,
            embedding_norm=embedding_norm,
            axis_name=axis_name,
            rngs=nnx.Rngs(jax.random.fold_in(key, 1 + i)),
        )
        for i, options in enumerate(ensemble)
    ]


def _create_other(
    options: Mapping[str, Any],
    section: str,
    create_trunk: Callable[..., Trunk],
    *,
    image_size: int,
    rngs: nnx.Rngs,
    **shared: Any,
) -> tuple[int, MultiScale]:
    """Returns the factor and the network of one entry of the ensemble.

    Args:
      options: Options of the network.
      section: Name of the entry, for messages.
      create_trunk: Function that `create_others` takes.
      image_size: Height and width of the images of the ensemble, in pixels.
      rngs: Keys of the initial parameters.
      **shared: Arguments of `MultiScale` that all networks share.
    """
    _check_options(options, section)
    factor = options.get("subsample", 1)
    size = -(-image_size // factor)
    keys = {"paths": f"{section}.paths"}
    keys["image_size"] = f"config.data.image_size, divided by {section}.subsample,"
    try:
        with config_keys(keys):
            network = MultiScale(
                # Its BatchNorm has no trained averages, and so cannot be frozen.
                create_trunk(
                    dict(options["trunk"]), size, batch_norm="synchronized", rngs=rngs
                ),
                image_size=size,
                embedding_dim=options["embedding_dim"],
                paths=options.get("paths", ()),
                rngs=rngs,
                **shared,
            )
    except ConfigError as error:
        message = str(error).replace("config.model.trunk", f"{section}.trunk")
        raise ConfigError(message) from error
    return factor, network


def embedding_dims(ensemble: Sequence[Mapping[str, Any]]) -> list[int]:
    """Returns the length of the embedding of each network of `config.model.ensemble`.

    Raises:
      ConfigError: An option is missing, unknown or out of its range.
    """
    for i, options in enumerate(ensemble):
        _check_options(options, f"{_SECTION}[{i}]")
    return [options["embedding_dim"] for options in ensemble]


def _check_options(options: Mapping[str, Any], section: str) -> None:
    """Checks that a network has the options that it needs, and no others."""
    with config_keys({"ensemble": _SECTION}):
        name = section.removeprefix("config.model.")
        layers.check_options(name, options, options=_OPTIONS, needed=_NEEDED)
    if not hasattr(options["trunk"], "items"):
        raise ConfigError(
            f"{section}.trunk={options['trunk']!r} must be a dict, e.g. "
            'dict(name="convnet").'
        )
    counts = {"embedding_dim": options["embedding_dim"]}
    counts["subsample"] = options.get("subsample", 1)
    with config_keys({name: f"{section}.{name}" for name in counts}):
        layers.check_counts(**counts)
