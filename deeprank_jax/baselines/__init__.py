"""Baselines without a network, the other rows of the paper's table."""
