"""Pooling of a trunk's last map: the mean of its places, or a learned one."""

from flax import nnx
import jax
import jax.numpy as jnp

Array = jax.Array

POOLINGS = ("mean", "gem")
# Power that GeM begins with, and the least value it raises, as its authors have them.
_POWER, _EPSILON = 3.0, 1e-6


class Mean(nnx.Module):
    """The mean of each channel."""

    def __call__(self, features: Array) -> Array:
        """Maps `[B, H, W, C]` to float32 `[B, C]`."""
        return jnp.mean(features, axis=(1, 2), dtype=jnp.float32)


class GeM(nnx.Module):
    r"""The generalised mean of each channel, whose power is learned.

    .. math::
      \Big(\frac{1}{HW} \sum_i \max(x_i, \epsilon)^p\Big)^{1/p}

    With :math:`p = 1` it is the mean, and the maximum is its limit. The optimizer moves
    the power by ten times the trunk's learning rate, without decay.

    Attributes:
      power: Power `p`, a single parameter of the network.

    References:
      Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation, 2018,
      https://arxiv.org/abs/1711.02512, whose code has these values.
    """

    def __init__(self) -> None:
        """Creates the layer with the power 3."""
        self.power = nnx.Param(jnp.float32(_POWER))

    def __call__(self, features: Array) -> Array:
        """Maps `[B, H, W, C]` to float32 `[B, C]`, at least 1e-6."""
        power = self.power[...]
        logs = jnp.log(jnp.maximum(features.astype(jnp.float32), _EPSILON))
        # The mean of powers by logarithms cannot overflow.
        places = features.shape[1] * features.shape[2]
        total = jax.nn.logsumexp(power * logs, axis=(1, 2)) - jnp.log(places)
        return jnp.exp(total / power)


def create_pooling(name: str) -> Mean | GeM:
    """Returns the pooling of a trunk's option `pooling`.

    Raises:
      ValueError: No pooling has that name.
    """
    if name not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {name!r}.")
    return GeM() if name == "gem" else Mean()
