"""Prepares the dataset of a config, and prints what it holds.

python -m deeprank_jax.cli.prepare --config=configs/emoji.py
"""

from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags
import numpy as np

from deeprank_jax import data, errors
from deeprank_jax.data import records as records_lib

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The config file.")
flags.mark_flag_as_required("config")


def main(argv: Sequence[str]) -> None:
    """Prepares and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        splits = data.create_records(_CONFIG.value.data)
    except (errors.DataError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    for records in splits.values():
        print(_describe(records))


def _describe(records: records_lib.Records) -> str:
    """Returns one line: the split, its records, and its labels at each level."""
    counts = [
        f"{len(np.unique(column)):,} {name}"
        for column, name in zip(records.labels.T, records.level_names, strict=True)
    ]
    return f"{records.name}: {len(records):,} images; {' > '.join(counts)}"


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
