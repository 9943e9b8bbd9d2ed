"""Benchmarks of the project's promises: `python -m tools.benchmark NAME`."""
