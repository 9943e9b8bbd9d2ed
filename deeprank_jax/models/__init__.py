"""Networks as NNX modules, created from a config by name."""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from deeprank_jax.errors import ConfigError, needs_extra

with needs_extra("train"):
    from flax import nnx

from deeprank_jax.models import layers
from deeprank_jax.models.autoencoder import Autoencoder, DecoderSizes
from deeprank_jax.models.class_vectors import ClassCount, CosineClassifier
from deeprank_jax.models.classifier import Classifier
from deeprank_jax.models.coded import Coded
from deeprank_jax.models.ensemble import create_others, embedding_dims
from deeprank_jax.models.jit_once import jit_once
from deeprank_jax.models.multiscale import MultiScale
from deeprank_jax.models.projection import HeadSizes, Projected
from deeprank_jax.models.trunks.alexnet import AlexNet
from deeprank_jax.models.trunks.base import ATTRIBUTES, Trunk
from deeprank_jax.models.trunks.convnet import ConvNet
from deeprank_jax.models.trunks.efficientnet_lite import EfficientNetLite
from deeprank_jax.models.trunks.resnet import ResNet50
from deeprank_jax.models.trunks.vgg import VGG16
from deeprank_jax.registry import Registry, config_keys

__all__ = [
    "BATCH_NORMS",
    "DTYPES",
    "TRUNKS",
    "Autoencoder",
    "ClassCount",
    "Classifier",
    "Coded",
    "CosineClassifier",
    "DecoderSizes",
    "Head",
    "HeadSizes",
    "MultiScale",
    "Projected",
    "Trunk",
    "create_abstract",
    "create_classifier",
    "create_model",
    "draw_missing",
    "embedding_dims",
    "register_trunk",
]

TRUNKS: Registry[Trunk] = Registry(
    "config.model.trunk",
    {
        "alexnet": AlexNet,
        "convnet": ConvNet,
        "efficientnet_lite0": functools.partial(EfficientNetLite, width=1.0, depth=1.0),
        "efficientnet_lite1": functools.partial(EfficientNetLite, width=1.0, depth=1.1),
        "efficientnet_lite2": functools.partial(EfficientNetLite, width=1.1, depth=1.2),
        "resnet50": ResNet50,
        "vgg16": VGG16,
    },
)
register_trunk = TRUNKS.register

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
BATCH_NORMS = ("synchronized", "frozen")

# Head of a ranking network in training; a number is that of classes with codes.
Head = HeadSizes | ClassCount | DecoderSizes | int

# Keys of the config whose values are not options of the trunk.
_CONFIG_KEYS = {
    "image_size": "config.data.image_size",
    **{
        name: f"config.model.{name}"
        for name in (
            "paths",
            "embed_shift",
            "embed_prefix",
            "whitening_power",
            "dtype",
            "batch_norm",
        )
    },
}
Network = TypeVar("Network", bound=nnx.Module)


def draw_missing(network: Network, create: Callable[[], Network]) -> Network:
    """Returns a network with drawn arrays in place of shapes, by one XLA program.

    The parameters are the same to the bit as those that `create` draws one by one. The
    program is cached on disk, so that the next process is some three times as fast.

    Args:
      network: Network of `create_abstract`, some of whose variables may have been given
        arrays since; those are kept, and cost no compilation.
      create: Function that creates the network, with the same arrays at every call.
    """
    graphdef, state = nnx.split(network)
    variables = dict(nnx.to_flat_state(state))
    shapes = [
        path
        for path, variable in variables.items()
        if isinstance(variable.get_value(), jax.ShapeDtypeStruct)
    ]

    @jit_once
    def draw() -> list[nnx.Variable]:
        drawn_network = dict(nnx.to_flat_state(nnx.state(create())))
        return [drawn_network[path] for path in shapes]

    variables.update(zip(shapes, draw(), strict=True))
    return nnx.merge(graphdef, nnx.from_flat_state(variables))


def create_abstract(create: Callable[[], Network]) -> Network:
    """Returns the network that a function creates, with shapes in place of arrays.

    Args:
      create: Function that creates a network.
    """
    return nnx.eval_shape(create)


def create_model(
    *,
    trunk: Mapping[str, object],
    image_size: int,
    embedding_dim: int | None,
    embedding_norm: bool = False,
    paths: Sequence[Mapping[str, int]] = (),
    embed_shift: int = 0,
    embed_flip: bool = False,
    embed_prefix: int = 0,
    whitening_power: float = 0.0,
    ensemble: Sequence[Mapping[str, Any]] = (),
    dtype: str = "float32",
    batch_norm: str = "synchronized",
    axis_name: str | None = None,
    head: Head | None = None,
    seed: int = 0,
) -> MultiScale:
    """Creates the ranking network that a config describes.

    Args:
      trunk: Name of a trunk in `TRUNKS` under `"name"`, and the options of that trunk.
      image_size: Height and width of the images, in pixels.
      embedding_dim: Length of an embedding; None for the features themselves.
      embedding_norm: True for BatchNorm of the numbers of each network's embedding.
      paths: Options of each low-resolution path.
      embed_shift: Length of the shifts over which an embedding is averaged, in pixels.
      embed_flip: True to average an embedding over mirror images, too.
      embed_prefix: Number of an embedding's first numbers that are kept; 0 for all.
      whitening_power: Power of the whitening, once it is fitted.
      ensemble: Options of each further network, see `config.model.ensemble`.
      dtype: Type of the layers, `"float32"` or `"bfloat16"`; parameters and embeddings
        are float32 either way.
      batch_norm: `"synchronized"` to normalise by the batch, over `axis_name`, or
        `"frozen"` by the running averages, in training, too; scale and bias learn.
      axis_name: Name of the mapped axis, if any.
      head: Sizes of a head in training, or its number of classes; None for none.
      seed: Seed of the initial parameters.

    Raises:
      ConfigError: A name is not known, or an option or the image size does not fit.
    """
    rngs = nnx.Rngs(seed)
    create_trunk = functools.partial(_create_trunk, dtype=dtype, axis_name=axis_name)
    with config_keys(_CONFIG_KEYS):
        first_trunk = create_trunk(trunk, image_size, batch_norm=batch_norm, rngs=rngs)
        shared: dict[str, Any] = {"image_size": image_size, "dtype": DTYPES[dtype]}
        shared |= {"embedding_norm": embedding_norm, "axis_name": axis_name}
        return _ranking_class(head, seed)(
            first_trunk,
            embedding_dim=embedding_dim,
            paths=paths,
            embed_shift=embed_shift,
            embed_flip=embed_flip,
            embed_prefix=embed_prefix,
            whitening_power=whitening_power,
            others=create_others(ensemble, create_trunk, seed=seed, **shared),
            rngs=rngs,
            **shared,
        )


def _ranking_class(head: Head | None, seed: int) -> Callable[..., MultiScale]:
    """Returns the class of a ranking network with the head of its training."""
    if head is None:
        return MultiScale
    if isinstance(head, HeadSizes):
        return functools.partial(Projected, head=head)
    if isinstance(head, ClassCount):
        return functools.partial(CosineClassifier, classes=head)
    if isinstance(head, DecoderSizes):
        return functools.partial(Autoencoder, decoder=head)
    return functools.partial(Coded, num_classes=head, seed=seed)


def create_classifier(
    *,
    trunk: Mapping[str, object],
    image_size: int,
    num_classes: int,
    outputs: str = "logits",
    sub_centers: int = 1,
    embed_prefix: int = 0,
    whitening_power: float = 0.0,
    dtype: str = "float32",
    batch_norm: str = "synchronized",
    axis_name: str | None = None,
    seed: int = 0,
) -> Classifier:
    """Creates the network of the first stage: the trunk and a logit per class.

    Args:
      trunk: Name and options of a trunk, as in `create_model`.
      image_size: Height and width of the images, in pixels.
      num_classes: Number of classes.
      outputs: Kind of output, as `Classifier` has them.
      sub_centers: Number of vectors of a class, for `"cosines"`.
      embed_prefix: Number of an embedding's first numbers that are kept; 0 for all.
      whitening_power: Power of the whitening, as in `create_model`.
      dtype: Type that the layers compute in, as in `create_model`.
      batch_norm: Statistics used by BatchNorm, as in `create_model`.
      axis_name: Name of the mapped axis, if any.
      seed: Seed of the initial parameters.

    Raises:
      ConfigError: As in `create_model`.
    """
    rngs = nnx.Rngs(seed)
    with config_keys(_CONFIG_KEYS):
        return Classifier(
            _create_trunk(trunk, image_size, dtype, batch_norm, axis_name, rngs),
            num_classes=num_classes,
            outputs=outputs,
            sub_centers=sub_centers,
            embed_prefix=embed_prefix,
            whitening_power=whitening_power,
            dtype=DTYPES[dtype],
            rngs=rngs,
        )


def _create_trunk(
    options: Mapping[str, object],
    image_size: int,
    dtype: str,
    batch_norm: str,
    axis_name: str | None,
    rngs: nnx.Rngs,
) -> Trunk:
    for name, value, choices in (
        ("dtype", dtype, sorted(DTYPES)),
        ("batch_norm", batch_norm, BATCH_NORMS),
    ):
        if value not in choices:
            raise ValueError(
                f"{name} must be one of {', '.join(choices)}, got {value!r}."
            )
    norm = functools.partial(
        layers.BatchNorm,
        momentum=0.9,
        axis_name=axis_name,
        use_running_average=batch_norm == "frozen",
    )
    trunk = TRUNKS.create(
        options, image_size=image_size, norm=norm, dtype=DTYPES[dtype], rngs=rngs
    )
    for attribute in ATTRIBUTES:
        if not hasattr(trunk, attribute):
            raise ConfigError(
                f"The trunk {options['name']!r} has no attribute {attribute}; a trunk "
                f"needs {', '.join(ATTRIBUTES)} (see deeprank_jax.models.Trunk)."
            )
    return trunk
