"""Networks as NNX modules, created from a config by name."""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import layers
from deeprank_jax.models.classifier import Classifier
from deeprank_jax.models.multiscale import MultiScale
from deeprank_jax.models.trunks.alexnet import AlexNet
from deeprank_jax.models.trunks.convnet import ConvNet
from deeprank_jax.models.trunks.efficientnet_lite import EfficientNetLite
from deeprank_jax.models.trunks.resnet import ResNet50
from deeprank_jax.models.trunks.vgg import VGG16

TRUNKS: Mapping[str, Callable[..., nnx.Module]] = {
    "alexnet": AlexNet,
    "convnet": ConvNet,
    "efficientnet_lite0": functools.partial(EfficientNetLite, width=1.0, depth=1.0),
    "efficientnet_lite1": functools.partial(EfficientNetLite, width=1.0, depth=1.1),
    "efficientnet_lite2": functools.partial(EfficientNetLite, width=1.1, depth=1.2),
    "resnet50": ResNet50,
    "vgg16": VGG16,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
BATCH_NORMS = ("synchronized", "frozen")


def compiled(create: Callable[[], Any]) -> Any:
    """Returns the network that a function creates, drawn by one compiled program.

    It is the same network to the bit; the next process finds the program on disk and
    is some three times as fast.
    """
    graphdef, _ = nnx.split(abstract(create))
    return nnx.merge(graphdef, jax.jit(lambda: nnx.state(create()))())


def abstract(create: Callable[[], Any]) -> Any:
    """Returns the network that a function creates, shapes in the place of arrays."""
    return nnx.eval_shape(create)


def create_model(
    *,
    trunk: Mapping[str, Any],
    image_size: int,
    embedding_dim: int,
    paths: Sequence[Mapping[str, int]] = (),
    dtype: str = "float32",
    batch_norm: str = "synchronized",
    axis_name: str | None = None,
    seed: int = 0,
) -> MultiScale:
    """Creates the ranking network that a config describes.

    Args:
      trunk: `name`, one of `TRUNKS`, and that trunk's own options.
      image_size: height and width of the images, in pixels.
      embedding_dim: the length of an embedding.
      paths: options of each low-resolution path; none is the single-scale network.
      dtype: `"float32"` or `"bfloat16"`, what the layers compute in; parameters and
        embeddings are float32 either way.
      batch_norm: `"synchronized"` normalises by the batch, averaged over `axis_name`;
        `"frozen"` by the running averages as they are, in training, too. Scale and
        bias learn either way.
      axis_name: the mapped axis, if any.
      seed: of the initial parameters.

    Raises:
      ValueError: no such trunk, dtype or way to normalise, or an option or image size
        that the trunk or a path cannot take.
    """
    rngs = nnx.Rngs(seed)
    return MultiScale(
        _create_trunk(trunk, image_size, dtype, batch_norm, axis_name, rngs),
        image_size=image_size,
        embedding_dim=embedding_dim,
        paths=paths,
        dtype=DTYPES[dtype],
        rngs=rngs,
    )


def create_classifier(
    *,
    trunk: Mapping[str, Any],
    image_size: int,
    num_classes: int,
    dtype: str = "float32",
    batch_norm: str = "synchronized",
    axis_name: str | None = None,
    seed: int = 0,
) -> Classifier:
    """Creates the network of the first stage: the trunk and a logit for each class.

    Args:
      trunk: as `create_model` takes it, like all that is not said here.
      image_size: height and width of the images, in pixels.
      num_classes: the length of the logits.
      dtype: what the layers compute in.
      batch_norm: what BatchNorm normalises by.
      axis_name: the mapped axis, if any.
      seed: of the initial parameters.

    Raises:
      ValueError: as `create_model`.
    """
    rngs = nnx.Rngs(seed)
    return Classifier(
        _create_trunk(trunk, image_size, dtype, batch_norm, axis_name, rngs),
        num_classes=num_classes,
        dtype=DTYPES[dtype],
        rngs=rngs,
    )


def _create_trunk(
    trunk: Mapping[str, Any],
    image_size: int,
    dtype: str,
    batch_norm: str,
    axis_name: str | None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    options = dict(trunk)
    if "name" not in options:
        raise ValueError(
            f"config.model.trunk={options} has no name: give it one of "
            f"{sorted(TRUNKS)}."
        )
    name = options.pop("name")
    if name not in TRUNKS:
        raise ValueError(f"No trunk is named {name!r}; there are {sorted(TRUNKS)}.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {sorted(DTYPES)}.")
    if batch_norm not in BATCH_NORMS:
        raise ValueError(
            f"config.model.batch_norm is {batch_norm!r}; choose one of {BATCH_NORMS}."
        )
    norm = functools.partial(
        layers.BatchNorm,
        momentum=0.9,
        axis_name=axis_name,
        use_running_average=batch_norm == "frozen",
    )
    try:
        return TRUNKS[name](
            image_size=image_size, norm=norm, dtype=DTYPES[dtype], rngs=rngs, **options
        )
    except TypeError as error:
        # Python's own sentence names the option; the rest says where it stands.
        raise ValueError(f"config.model.trunk, {name!r}: {error}.") from error
