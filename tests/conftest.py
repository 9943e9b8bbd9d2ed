"""Runs every test on four simulated CPU devices, with JAX at its strictest."""

from deeprank_jax import parallel

parallel.configure_backend()

import jax  # noqa: E402  It reads its flags when it starts.

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
