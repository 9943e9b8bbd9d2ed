"""Training: the loop, the compiled step, checkpoints and tasks."""

from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import flax  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import tensorboardX  # noqa: F401
