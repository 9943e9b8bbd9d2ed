"""Losses of triplets, created as a config creates them."""

import jax
import jax.numpy as jnp

from deeprank_jax import losses
from deeprank_jax.distributed import devices

AT_START = dict(step=0, key=jax.random.key(0))


def create_loss(
    *, miner="sampled", soft_margin=False, margin=1.0, warmup_steps=None, **options
):
    """Returns a loss of `(outputs, batch, step=, key=)`."""
    miner_section = {"name": miner}
    if warmup_steps is not None:
        miner_section["warmup_steps"] = warmup_steps
    section = {"symmetric": options.pop("symmetric", False), "miner": miner_section}
    if soft_margin:
        section["name"] = "triplet_soft_margin"
    else:
        section.update(name="triplet_hinge", margin=margin)
    return losses.create_loss(
        section, axis_name=options.pop("axis_name", None), **options
    )


def create_loss_fn(*, transform=jax.jit, **options):
    """Returns the same as a function of `(embeddings, attributes, step=, key=)`.

    It is compiled, which takes less time than to run each of its operations alone.
    """
    loss = create_loss(**options)
    return transform(
        lambda embeddings, attributes, *, step, key: loss(
            embeddings, {"attributes": attributes}, step=step, key=key
        )
    )


def on_four_devices(loss, embeddings, batch):
    """Returns the mean loss on each of four devices, and the gradient of their mean.

    Args:
      loss: Loss of groups over the devices' axis.
      embeddings: `[B, n, D]`, of groups that are shared evenly.
      batch: Arrays `[B, ...]`.
    """
    split = lambda x: jnp.asarray(x).reshape(4, -1, *x.shape[1:])

    def on_device(x, batch):
        mean = lambda x: loss(x, batch, **AT_START).mean()
        value, grads = jax.value_and_grad(mean)(x)
        return jax.lax.pmean(value, devices.DATA_AXIS), grads

    values, grads = jax.pmap(on_device, axis_name=devices.DATA_AXIS)(
        split(embeddings), jax.tree.map(split, batch)
    )
    return values, grads.reshape(embeddings.shape) / 4
