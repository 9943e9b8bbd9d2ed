"""Can this config be, and is it the one that the run began with?"""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

from absl import logging
import ml_collections

# What may change between the processes of one run: how it is run, not what it is.
_FREE = (
    "log_every", "eval_every", "checkpoint_every", "max_skipped",
    "data.dir", "data.cache_mib", "data.workers", "data.prefetch",
    "data.max_bad_share", "evaluation.batch_size",
)  # fmt: skip
# What may change while a run goes on, e.g. after it diverged.
_FREE_UNTIL_THE_END = ("loss", "optimizer", "schedule")


def check_config(config: ml_collections.ConfigDict) -> None:
    """Checks what would otherwise fail late or in other words.

    Raises:
      ValueError: a value cannot be.
    """
    flat = flatten_config(config)
    counts = (
        "num_steps", "batch_size", "log_every", "eval_every", "checkpoint_every",
        "max_skipped", "data.image_size", "model.embedding_dim",
        "evaluation.batch_size", "evaluation.triplets.num", "evaluation.triplets.k",
    )  # fmt: skip
    for key in counts:
        if flat[key] < 1:
            raise ValueError(f"config.{key} must be at least 1, got {flat[key]}.")
    kind, levels = config.relevance.name, tuple(config.relevance.levels)
    if (kind == "hierarchy") != bool(levels):
        raise ValueError(
            f"config.relevance.levels={levels} does not go with "
            f"config.relevance.name={kind!r}: a hierarchy needs a relevance for each "
            "level, from coarse to fine, and the other kinds none."
        )
    ks, best = config.evaluation.retrieval.ks, config.evaluation.best_metric
    known = [
        "retrieval/map@r",
        *(f"retrieval/{name}@{k}" for name in ("recall", "ndcg") for k in ks),
        "triplets/precision",
        "triplets/precision_in_class",
        f"triplets/score_at_{config.evaluation.triplets.k}_share",
    ]
    if best not in known:
        raise ValueError(
            f"config.evaluation.best_metric={best!r} is not measured; choose one of "
            f"{', '.join(known)}."
        )


def check_levels(config: ml_collections.ConfigDict, names: Sequence[str]) -> None:
    """Checks that what is given for each level fits the records.

    Args:
      config: the whole configuration.
      names: of the records' levels.

    Raises:
      ValueError: there are more or fewer values than levels.
    """
    for key, values in (
        ("relevance.levels", config.relevance.levels),
        ("evaluation.gains", config.evaluation.gains),
    ):
        if values and len(values) != len(names):
            raise ValueError(
                f"config.{key} has {len(values)} values, but the records have "
                f"{len(names)} levels ({', '.join(names)}): give one for each, from "
                "coarse to fine."
            )


def flatten_config(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the config's values by dotted key, as JSON would have them."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                add(f"{prefix}.{key}" if prefix else key, part)
        else:
            flat[prefix] = value

    add("", json.loads(config.to_json_best_effort()))
    return flat


def check_same_run(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    where: pathlib.Path,
    *,
    ended: bool,
) -> None:
    """Checks that a checkpoint's config is that of the run that finds it.

    Args:
      before: the checkpoint's `flatten_config`.
      now: the run's.
      where: the checkpoint, for the message.
      ended: nothing is left to train, so that no change can have an effect.

    Raises:
      ValueError: they differ in what makes it another run.
    """
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) == now.get(key) or _is_part_of(key, _FREE):
            continue
        change = f"config.{key} was {before.get(key)} and is {now.get(key)} now"
        if key == "num_steps":
            logging.warning("%s: the schedule is that of the new length.", change)
            continue
        if ended or not _is_part_of(key, _FREE_UNTIL_THE_END):
            raise ValueError(
                f"{where} is of another run: {change}. Give another --workdir, or the "
                "value the run began with."
            )
        logging.warning("Going on with a change: %s.", change)


def _is_part_of(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
