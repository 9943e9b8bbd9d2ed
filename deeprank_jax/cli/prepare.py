"""Prepares the dataset of a config and counts its images and labels.

For example:
  deeprank prepare --config=emoji
"""

import argparse

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result

USES_JAX = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_config(parser)


def run(options: argparse.Namespace) -> Result:
    """Prepares the dataset."""
    import numpy as np

    from deeprank_jax import data

    splits = data.create_records(arguments.load_config(options).data)
    values, lines = {}, []
    for split, records in splits.items():
        levels = {
            name: len(np.unique(column))
            for column, name in zip(records.labels.T, records.level_names, strict=True)
        }
        values[split] = {"images": len(records), "labels": levels}
        counts = " > ".join(
            f"{number:,} {title}"
            for number, title in zip(levels.values(), records.level_titles, strict=True)
        )
        lines.append(f"{records.name}: {len(records):,} images; {counts}")
    return Result(values, "\n".join(lines))
