"""Checks of a config before anything slow begins."""

from collections.abc import Mapping, Sequence
import math
import pathlib

import ml_collections

from deeprank_jax.config.saved import flatten_config, read_run_config
from deeprank_jax.errors import ConfigError

_COUNTS = (
    "num_steps", "batch_size", "accumulate_steps", "log_every", "eval_every",
    "checkpoint_every", "max_skipped", "data.image_size", "model.embedding_dim",
    "evaluation.batch_size",
)  # fmt: skip
# None is chosen by the data, or for an embedding stands for the features themselves.
_OPTIONAL = (
    "num_steps", "batch_size", "eval_every", "data.image_size", "model.embedding_dim",
)  # fmt: skip
_LEAST = {
    "patience": 0,
    "schedule.warmup_steps": 0,
    "data.cache_mib": 0,
    "data.workers": 1,
    "data.prefetch": 1,
    "data.max_bad_share": 0,
}
# Sequences of dicts in `config.model`, each with an example.
_DICTS = {
    "paths": "dict(subsample=2, kernel=8, stride=4, width=32, pool=3, pool_stride=2)",
    "ensemble": 'dict(trunk=dict(name="convnet"), embedding_dim=64)',
}
# Warm-up of a run that is long enough for it.
_WARMUP_STEPS = 50


def check_config(config: ml_collections.ConfigDict) -> None:
    """Checks the values that belong to no plug-in.

    Options of plug-ins are checked where these are created.

    Raises:
      ConfigError: A value is out of its range, or two do not go together.
    """
    flat = flatten_config(config)
    for key in _COUNTS:
        if flat[key] is None and key in _OPTIONAL:
            continue
        if flat[key] is None or flat[key] < 1:
            raise ConfigError(f"config.{key} must be at least 1, got {flat[key]}.")
    for key, least in _LEAST.items():
        if flat[key] is not None and not flat[key] >= least:
            raise ConfigError(
                f"config.{key} must be at least {least}, got {flat[key]}."
            )
    for name, example in _DICTS.items():
        for item in config.model[name]:
            if not isinstance(item, Mapping | ml_collections.ConfigDict):
                raise ConfigError(
                    f"config.model.{name}={config.model[name]} holds {item!r}; give "
                    f"dicts, e.g. {example}."
                )
    if not 0 < config.optimizer.learning_rate < math.inf:
        raise ConfigError(
            f"config.optimizer.learning_rate={config.optimizer.learning_rate} must be "
            "above 0 and finite."
        )
    if not 0 <= config.optimizer.ema_decay < 1:
        raise ConfigError(
            f"config.optimizer.ema_decay={config.optimizer.ema_decay} must be at least "
            "0, for no average, and below 1."
        )
    if config.init_from and config.model.weights:
        raise ConfigError(
            f"config.init_from={config.init_from!r} and config.model.weights="
            f"{config.model.weights!r} both name a network to start from: give one."
        )
    _check_augment(config.data.augment)


def _check_augment(augment: ml_collections.ConfigDict) -> None:
    """Checks the strengths of the augmentation.

    Raises:
      ConfigError: One is out of range.
    """
    for name, value in augment.items():
        if not value >= 0:
            raise ConfigError(
                f"config.data.augment.{name} must be at least 0, got {value}."
            )
    for name in (
        "color_jitter",
        "quarter_turns",
        "swap_colors",
        "grayscale",
        "crop_area",
        "cutout",
        "mixing",
    ):
        if augment[name] > 1:
            raise ConfigError(
                f"config.data.augment.{name}={augment[name]} must be at most 1."
            )
    if not augment.crop_area:
        raise ConfigError(
            f"config.data.augment.crop_area={augment.crop_area} must be above 0; 1 "
            "turns it off."
        )


def check_levels(config: ml_collections.ConfigDict, names: Sequence[str]) -> None:
    """Checks that the values given for each level fit the records.

    Args:
      config: Whole configuration.
      names: Names of the records' levels, from coarse to fine.

    Raises:
      ConfigError: More or fewer values than levels are given, or the category is not
        one of the levels.
    """
    level = config.triplets.category_level
    if level is not None and not -len(names) <= level < len(names):
        raise ConfigError(
            f"config.triplets.category_level={level} is not one of the records' "
            f"{len(names)} levels ({', '.join(names)}): choose None or one from "
            f"{-len(names)} to {len(names) - 1}."
        )
    for key, values in (
        ("relevance.levels", config.relevance.get("levels", ())),
        ("evaluation.gains", config.evaluation.gains),
    ):
        if values and len(values) != len(names):
            raise ConfigError(
                f"config.{key} has {len(values)} values, but the records have "
                f"{len(names)} levels ({', '.join(names)}): give one for each, from "
                "coarse to fine."
            )


def resolve_config(
    config: ml_collections.ConfigDict, saved: pathlib.Path | None = None
) -> ml_collections.ConfigDict:
    """Returns the config with values in the place of those that depend on others.

    The warm-up of the schedule is 50 steps, or a fifth of a run that is short.

    Args:
      config: Whole configuration.
      saved: Path of the run's saved config, whose warm-up a run of the same length
        keeps; None or a missing file for a new run.
    """
    if config.schedule.warmup_steps is not None:
        return config
    warmup_steps = min(_WARMUP_STEPS, config.num_steps // 5)
    if saved is not None and saved.is_file():
        before = read_run_config(saved.parent)
        if before.num_steps == config.num_steps:
            warmup_steps = before.schedule.warmup_steps
    resolved = config.copy_and_resolve_references()
    resolved.schedule.warmup_steps = warmup_steps
    return resolved
