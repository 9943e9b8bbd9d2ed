"""Proxy-anchor loss: a vector per class, compared with all images of a batch."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from deeprank_jax.losses.pairs import masked_logsumexp

Array = jax.Array


def proxy_anchor_loss(
    cosines: Array, labels: Array, *, margin: float = 0.1, alpha: float = 32.0
) -> Array:
    r"""Pulls each class's images to its proxy and pushes all others away.

    .. math::
      \frac1{|P^+|} \sum_{p \in P^+} \ln(1 + \sum_{x \in p} e^{-\alpha (s_{xp} - m)})
      + \frac1{|P|} \sum_{p \in P} \ln(1 + \sum_{x \notin p} e^{\alpha (s_{xp} + m)})

    with :math:`P^+` the proxies that have an image in the batch.

    Args:
      cosines: `[B, K]` float cosines of images and proxies.
      labels: `[B]` int, labels from 0 to `K - 1`.
      margin: Margin `m`.
      alpha: Sharpness, above 0.

    Returns:
      `[]` float32.

    References:
      Kim et al., Proxy Anchor Loss for Deep Metric Learning, 2020,
      https://arxiv.org/abs/2003.13911.
    """
    by_proxy = cosines.astype(jnp.float32).T
    is_positive = labels[None] == jnp.arange(len(by_proxy))[:, None]
    of_positives = masked_logsumexp(-alpha * (by_proxy - margin), is_positive)
    of_negatives = masked_logsumexp(alpha * (by_proxy + margin), ~is_positive)
    has_positive = jnp.any(is_positive, axis=1)
    pulled = jnp.where(has_positive, jax.nn.softplus(of_positives), 0.0)
    pushed = jnp.where(
        jnp.any(~is_positive, axis=1), jax.nn.softplus(of_negatives), 0.0
    )
    return jnp.sum(pulled) / jnp.maximum(jnp.sum(has_positive), 1) + jnp.mean(pushed)


class ProxyAnchor:
    """Proxy-anchor loss of the images of all devices: `proxy_anchor_loss`.

    The authors learn the proxies at a hundred times the rate of the trunk:
    `config.optimizer.trunk_scale=0.01`.
    """

    outputs = "cosines"

    def __init__(
        self, *, margin: float = 0.1, alpha: float = 32.0, axis_name: str | None = None
    ):
        """Creates the loss.

        Args:
          margin: Margin.
          alpha: Sharpness.
          axis_name: Name of the axis of devices that share their images; None for one
            device alone.

        Raises:
          ValueError: The sharpness is not positive.
        """
        if alpha <= 0:
            raise ValueError(f"alpha must be above 0, got {alpha}.")
        self._margin, self._alpha, self._axis_name = margin, alpha, axis_name

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Array],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the loss of the whole batch for each image, `[B]`."""
        del step, key
        cosines, labels = outputs[:, 0], batch["labels"][:, 0]
        if self._axis_name is not None:
            cosines, labels = jax.lax.all_gather(
                (cosines, labels), self._axis_name, tiled=True
            )
        loss = proxy_anchor_loss(
            cosines, labels, margin=self._margin, alpha=self._alpha
        )
        return jnp.broadcast_to(loss, outputs.shape[:1])

    def describe(self) -> str:
        """Returns the loss with its options."""
        return f"proxy-anchor, margin {self._margin:g}, alpha {self._alpha:g}"
