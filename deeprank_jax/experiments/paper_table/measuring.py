"""Measures systems on the records that all of them have, and how long that takes."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np
import tqdm

from deeprank_jax import files
from deeprank_jax.baselines.systems import System
from deeprank_jax.experiments.paper_table.dataset import Table


def measure_all(
    table: Table,
    found: Mapping[str, System],
    trained: Mapping[str, System],
    scores: Mapping[str, Any],
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the scores of all systems, and the records of test that all have.

    Args:
      table: the dataset.
      found: systems that were measured before the others were trained.
      trained: these others.
      scores: of the first, on the records that they all have.
    """
    everyone = {**found, **trained}
    ok = table.measurable(everyone.values())
    if np.array_equal(ok, table.measurable(found.values())):
        return {**scores, **measure(table, trained, ok)}, ok
    return measure(table, everyone, ok), ok


def measure(
    table: Table, found: Mapping[str, System], ok: np.ndarray
) -> dict[str, Any]:
    """Returns the scores of systems by name.

    Args:
      table: the dataset.
      found: the systems.
      ok: as of `Table.measure`.
    """
    bar = tqdm.tqdm(found.items(), desc="measuring", unit="row")
    return {name: table.measure(system, ok) for name, system in bar}


def longest(path: pathlib.Path, seconds: float) -> float:
    """Returns how long the call took that had the most to do, and keeps it."""
    if path.exists():
        seconds = max(seconds, json.loads(path.read_text())["seconds"])
    files.write_json(path, {"seconds": seconds})
    return seconds
