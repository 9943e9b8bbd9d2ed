"""Can this config be, and is it the one that the run began with?"""

from collections.abc import Mapping, Sequence
import json
import math
import pathlib
from typing import Any

from absl import logging
import ml_collections

from deeprank_jax.relevance import _check_relevance
from deeprank_jax.sampling.create import _check_sampler

# What may change between the processes of one run: how it is run, not what it is.
_FREE = (
    "model.remat", "log_every", "eval_every", "checkpoint_every", "max_skipped",
    "data.dir", "data.cache_mib", "data.workers", "data.prefetch",
    "data.max_bad_share", "evaluation.batch_size", "evaluation.rated_triplets",
    "evaluation.max_compared",
)  # fmt: skip
# What may change while a run goes on, e.g. after it diverged.
_FREE_UNTIL_THE_END = ("loss", "optimizer", "schedule")


# Keys that came later, and what runs that were made before them had.
_LATER = {"evaluation.rated_triplets": "", "evaluation.max_compared": 50_000}


def read_run_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns the config of a run; keys that came after it are as they were then.

    Args:
      workdir: of the run.

    Raises:
      ValueError: it is no run, or its config cannot be read.
    """
    path = workdir / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"{workdir} is no run, it has no config.json; give the --workdir of "
            "`python -m deeprank_jax.main`."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}).") from error
    try:
        for key, value in _LATER.items():
            group, name = key.split(".")
            values[group].setdefault(name, value)
        return ml_collections.ConfigDict(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not the config of a run; give the --workdir of one."
        ) from error


def check_config(config: ml_collections.ConfigDict) -> None:
    """Checks what would otherwise fail late or in other words.

    Raises:
      ValueError: a value cannot be.
    """
    flat = flatten_config(config)
    counts = (
        "num_steps", "batch_size", "accumulate_steps", "log_every", "eval_every",
        "checkpoint_every",
        "max_skipped", "data.image_size", "model.embedding_dim",
        "evaluation.batch_size", "evaluation.triplets.num", "evaluation.triplets.k",
    )  # fmt: skip
    for key in counts:
        if flat[key] < 1:
            raise ValueError(f"config.{key} must be at least 1, got {flat[key]}.")
    if not 0 < config.optimizer.learning_rate < math.inf:
        raise ValueError(
            f"config.optimizer.learning_rate={config.optimizer.learning_rate} must be "
            "above 0 and finite."
        )
    if config.task not in ("ranking", "classification"):
        raise ValueError(
            f"config.task={config.task!r} is none; choose 'ranking' or "
            "'classification', the first of the paper's two stages."
        )
    if config.init_from and config.model.weights:
        raise ValueError(
            f"config.init_from={config.init_from!r} and config.model.weights="
            f"{config.model.weights!r} both say what the network starts from: give one."
        )
    for name, value in config.data.augment.items():
        if value < 0:
            raise ValueError(
                f"config.data.augment.{name} must be at least 0, which turns it off; "
                f"got {value}."
            )
    jitter = config.data.augment.color_jitter
    if jitter > 1:
        raise ValueError(
            f"config.data.augment.color_jitter={jitter} must be at most 1, where a "
            "factor may be anything from 0 to 2."
        )
    smoothing = config.classification.label_smoothing
    if not 0 <= smoothing < 1:
        raise ValueError(
            f"config.classification.label_smoothing={smoothing} must be at least 0 and "
            "below 1: it is the share of the target that is spread over all classes."
        )
    _check_relevance(config.relevance.to_dict())
    _check_sampler(config.sampler)
    ks, best = config.evaluation.retrieval.ks, config.evaluation.best_metric
    known = [
        *(f"retrieval/{name}" for name in ("map@r", "r_precision", "mrr")),
        *(f"retrieval/{name}@{k}" for name in ("recall", "ndcg") for k in ks),
        *(f"retrieval/precision@{k}" for k in ks if k > 1),
        "triplets/precision",
        "triplets/precision_in_class",
        f"triplets/score_at_{config.evaluation.triplets.k}_share",
    ]
    if config.evaluation.rated_triplets:
        known += [
            "rated/precision",
            f"rated/score_at_{config.evaluation.triplets.k}_share",
        ]
    if config.task == "classification":
        known += ["classification/top1", "classification/top5"]
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
      ValueError: there are more or fewer values than levels, or the category is none
        of them.
    """
    level = config.sampler.category_level
    if level is not None and not -len(names) <= level < len(names):
        raise ValueError(
            f"config.sampler.category_level={level} is none of the records' "
            f"{len(names)} levels ({', '.join(names)}): choose None or one from "
            f"{-len(names)} to {len(names) - 1}."
        )
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
    return _flatten(json.loads(config.to_json_best_effort()))


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of nested dicts by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            inner = _flatten(value)
            flat.update({f"{key}.{name}": part for name, part in inner.items()})
        else:
            flat[key] = value
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
