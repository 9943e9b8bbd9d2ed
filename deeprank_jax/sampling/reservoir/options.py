"""Ranges of the options of a reservoir sampler."""

import numpy as np

from deeprank_jax.sampling.reservoir.law import MODES

# The least and the greatest value of an argument.
_RANGES = {
    "seed": (0, np.inf),
    "capacity": (2, np.inf),
    "warmup_records": (1, np.inf),
    "records_per_step": (1, np.inf),
    "positive_cap": (np.nextafter(0.0, 1.0), np.inf),
    "min_relevance_gap": (0, np.inf),
    "min_positive_relevance": (0, np.inf),
    "out_of_class": (0, 1),
    "num_shards": (1, np.inf),
}


def check_options(
    *, mode: str = "importance", warmup_records: int | None = None, **numbers: float
) -> None:
    """Checks the options of `TripletSampler` without any records.

    Args:
      mode: Mode of the draws.
      warmup_records: Number of records ingested before step 0, or None.
      **numbers: Values of the other options.

    Raises:
      ValueError: An option is out of its range.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be {' or '.join(map(repr, MODES))}, got {mode!r}.")
    if warmup_records is not None:
        numbers["warmup_records"] = warmup_records
    _check_ranges(**numbers)


def check_process(seed: int, shard: int, num_shards: int) -> None:
    """Checks the seed, and the index of a process among all that draw.

    Raises:
      ValueError: A number is out of its range.
    """
    _check_ranges(seed=seed, num_shards=num_shards)
    if not 0 <= shard < num_shards:
        raise ValueError(
            f"shard must be one of the {num_shards} (0 to {num_shards - 1}), got "
            f"{shard}."
        )


def _check_ranges(**values: float) -> None:
    for name, value in values.items():
        low, high = _RANGES[name]
        if not low <= value <= high:
            bounds = "above 0" if 0 < low < 1 else f"at least {low}"
            if high < np.inf:
                bounds = f"in [{low}, {high}]"
            raise ValueError(f"{name} must be {bounds}, got {value}.")
