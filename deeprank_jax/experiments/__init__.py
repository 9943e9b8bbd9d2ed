"""Experiments of several runs: ablations and the paper's table."""
