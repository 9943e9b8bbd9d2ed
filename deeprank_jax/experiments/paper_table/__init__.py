"""The parts of the paper's table, which `deeprank_jax.experiments.paper_table.run` puts together."""
