"""Image similarity by deep ranking, in JAX/Flax for GPU and TPU."""
