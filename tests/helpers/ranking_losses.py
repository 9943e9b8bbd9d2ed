"""Losses of triplets, created as a config creates them."""

import jax

from deeprank_jax import losses


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
