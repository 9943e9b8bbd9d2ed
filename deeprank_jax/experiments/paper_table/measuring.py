"""Metrics of all systems, measured on the records that every system has."""

from collections.abc import Mapping
import pathlib

import numpy as np

from deeprank_jax import files
from deeprank_jax.baselines.systems import System
from deeprank_jax.evaluation import QueryScores
from deeprank_jax.experiments.paper_table.dataset import Table
from deeprank_jax.progress import Bar

# Per-query scores by metric, of one system.
Scores = Mapping[str, QueryScores]


def measure_all(
    table: Table,
    handmade: Mapping[str, System],
    trained: Mapping[str, System],
    scores: Mapping[str, Scores],
) -> tuple[dict[str, Scores], np.ndarray]:
    """Measures all systems on the records of test that all of them have.

    Args:
      table: Dataset of the table.
      handmade: Systems measured before the networks were trained.
      trained: Systems of the trained networks.
      scores: Scores of the hand-made systems, on the records that these have.

    Returns:
      Scores by system, and a mask `[N]` of the records measured.
    """
    everyone = {**handmade, **trained}
    ok = table.measurable(everyone.values())
    if np.array_equal(ok, table.measurable(handmade.values())):
        return {**scores, **measure(table, trained, ok)}, ok
    return measure(table, everyone, ok), ok


def measure(
    table: Table, systems: Mapping[str, System], ok: np.ndarray
) -> dict[str, Scores]:
    """Returns the scores of systems by name.

    Args:
      table: Dataset of the table.
      systems: Systems by name.
      ok: `[N]` bool, the records of test to measure on.
    """
    bar = Bar(systems.items(), desc="measuring", unit="row")
    return {name: table.measure(system, ok) for name, system in bar}


def longest(path: pathlib.Path, seconds: float) -> float:
    """Returns the longest duration of all calls so far, stored in a file."""
    if path.exists():
        seconds = max(seconds, files.read_json(path)["seconds"])
    files.write_json(path, {"seconds": seconds})
    return seconds
