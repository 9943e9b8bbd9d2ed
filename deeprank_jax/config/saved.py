"""Saved configs: reading that of a run, and comparing two."""

from collections.abc import Callable, Mapping
import copy
import json
import pathlib
import shlex
from typing import Any

from absl import logging
import ml_collections

from deeprank_jax import checksums, files
from deeprank_jax.config.loading import import_plugins
from deeprank_jax.errors import CheckpointError, ConfigError

# Keys that say how a run is executed and measured: processes of one run may differ.
_FREE = (
    "plugins", "model.remat", "log_every", "eval_every", "checkpoint_every",
    "max_skipped", "patience", "model.whitening_power", "task.file",
    "data.dir", "data.cache_mib", "data.workers", "data.prefetch",
    "data.max_bad_share", "data.source.cache_mib", "data.teacher",
    "evaluation.batch_size",
    "evaluation.evaluators", "evaluation.max_compared",
)  # fmt: skip
# Keys that may change while a run goes on, e.g. after it diverged.
_FREE_UNTIL_THE_END = ("loss", "optimizer", "schedule")
# Options of relevances, which once were written down empty where they did not apply.
_RELEVANCE_OPTIONS = ("levels", "weights", "file", "kernel", "scale")
_RESERVOIR_OPTIONS = ("mode", "capacity", "records_per_step", "out_of_class")
# Options that came later, with the values that a run before them had.
_LATER_AUGMENT = {
    "quarter_turns": 0.0,
    "swap_colors": 0.0,
    "grayscale": 0.0,
    "crop_area": 1.0,
    "cutout": 0.0,
    "mixing": 0.0,
    "blur": 0.0,
}
_LATER_RESERVOIR = {
    "min_positive_relevance": 0.0,
    "positives_per_anchor": 1,
    "negatives_per_anchor": 1,
}
_TFDS_OPTIONS = ("levels", "image_feature", "name_feature", "columns", "split_by")

# Folder of the first stage's run, within that of the second.
FIRST_STAGE = "first_stage"

Tree = dict[str, Any]


def saved_values(config: ml_collections.ConfigDict) -> Tree:
    """Returns the values of a config as they are written into the folder of a run.

    Args:
      config: Whole configuration, whose data and files of pairs may lie in relative
        paths; those that are written hold in any working directory.
    """
    values = _with_absolute_paths(json.loads(config.to_json_best_effort()))
    if values["first_stage"]:
        values["init_from"] = ""  # It follows from the folder of the run.
    return values


def read_run_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns the config of a run, in today's shape.

    If its file is damaged, the config is that of the latest checkpoint, with a warning.

    Args:
      workdir: Folder of the run.

    Raises:
      ConfigError: The folder is not that of a run, or its config cannot be read.
    """
    path = workdir / "config.json"
    try:
        checksums.check_listed(path)
        values = files.read_json(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{workdir} is not a run, since it has no config.json; give the --workdir "
            "of `deeprank train`."
        ) from error
    except (OSError, ValueError) as error:
        values = _read_from_checkpoint(workdir)
        if values is None:
            raise ConfigError(
                f"{path} cannot be read ({error}), and no checkpoint has its values; "
                f"delete it, by `rm {shlex.quote(str(path))}`, and run the training "
                "command again, which writes it anew."
            ) from error
        logging.warning(
            "%s cannot be read (%s): the values are those of the latest checkpoint. "
            "The training command, run again, writes the file anew.",
            path,
            error,
        )
    try:
        config = ml_collections.ConfigDict(upgrade_config(values))
    except (ConfigError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not the config of a run; give the --workdir of one."
        ) from error
    if config.first_stage:
        config.init_from = str(workdir / FIRST_STAGE)
    import_plugins(config.plugins)
    return config


def _read_from_checkpoint(workdir: pathlib.Path) -> Tree | None:
    """Returns the config in the latest undamaged checkpoint, None if there is none."""
    steps = (workdir / "checkpoints").glob("[0-9]*")
    steps = [step for step in steps if step.name.isdecimal()]
    for step in sorted(steps, key=lambda step: int(step.name), reverse=True):
        path = step / "run" / "metadata"
        try:
            digest = checksums.read_checksums(step).get("run/metadata")
            if digest == checksums.file_digest(path):
                values = _unflatten(files.read_json(path)["config"])
                # As in config.json; a checkpoint has the paths as they were typed.
                return _with_absolute_paths(values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def _with_absolute_paths(values: Tree) -> Tree:
    """Returns saved values with absolute paths of the data and of the pairs."""
    sections = [(values["data"], "dir")]
    task = values["task"]  # Of an old run it is a text, and there are no pairs.
    if isinstance(task, dict) and task["name"] == "pairs":
        sections.append((task, "file"))
    if pairs := values["evaluation"].get("evaluators", {}).get("pairs"):
        sections.append((pairs, "file"))
    for section, key in sections:
        section[key] = files.absolute(section[key])
    return values


def flatten_config(config: ml_collections.ConfigDict) -> Tree:
    """Returns the config's values by dotted key, as JSON would have them."""
    return _flatten(json.loads(config.to_json_best_effort()))


def check_same_run(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    where: pathlib.Path,
    *,
    ended: bool,
) -> None:
    """Checks that a checkpoint belongs to the run that found it.

    Args:
      before: `flatten_config` of the checkpoint.
      now: `flatten_config` of the run.
      where: Path of the checkpoint, for the message.
      ended: True if no step remains, so that no change can have an effect.

    Raises:
      CheckpointError: The two differ in a key that makes another run.
    """
    before = _flatten(upgrade_config(_unflatten(before)))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) == now.get(key) or _is_part_of(key, _FREE):
            continue
        if key == "init_from" and before["first_stage"] and now["first_stage"]:
            continue  # A folder within that of the run, which may have moved.
        change = f"config.{key} was {before.get(key)} and is {now.get(key)} now"
        if key == "num_steps":
            logging.warning("%s: the schedule is that of the new length.", change)
            continue
        if ended or not _is_part_of(key, _FREE_UNTIL_THE_END):
            raise CheckpointError(
                f"{where} is of another run: {change}. Give another --workdir, or the "
                "value that the run began with."
            )
        logging.warning("Going on with a change: %s.", change)


def upgrade_config(values: Mapping[str, Any]) -> Tree:
    """Returns a saved config in today's shape; one of today keeps its values.

    Args:
      values: Nested dicts, as read from a `config.json`.

    Raises:
      ConfigError: The values are not those of a config.
    """
    try:
        values = copy.deepcopy(dict(values))
        values.setdefault("plugins", [])
        values.setdefault("patience", 0)
        values.setdefault("first_stage", "")
        if isinstance(values["task"], str):
            for convert in _CONVERSIONS:
                convert(values)
        values["data"].setdefault("teacher", "")
        values["data"]["augment"] = _LATER_AUGMENT | values["data"]["augment"]
        values["model"].setdefault("embed_shift", 0)
        values["model"].setdefault("embed_flip", False)
        values["model"].setdefault("embed_prefix", 0)
        values["model"].setdefault("embedding_norm", False)
        values["model"].setdefault("ensemble", [])
        values["model"].setdefault("whitening_power", 0.0)
        values["optimizer"].setdefault("ema_decay", 0.0)
        if values["sampler"]["name"] == "reservoir":
            values["sampler"] = _LATER_RESERVOIR | values["sampler"]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ConfigError(f"The values are not those of a config ({error}).") from error
    return values


def _upgrade_evaluation(values: Tree) -> None:
    evaluation = values["evaluation"]
    evaluation.setdefault("max_compared", 50_000)
    evaluators = {
        "retrieval": evaluation.pop("retrieval"),
        "triplets": evaluation.pop("triplets"),
    }
    if rated := evaluation.pop("rated_triplets", ""):
        evaluators["rated_triplets"] = {"file": rated, "k": evaluators["triplets"]["k"]}
    evaluation["evaluators"] = evaluators


def _upgrade_sampler(values: Tree) -> None:
    sampler = values["sampler"]
    values["triplets"] = {
        "category_level": sampler["category_level"],
        "positive_cap": sampler["positive_cap"],
        "min_relevance_gap": sampler["min_relevance_gap"],
    }
    if sampler.get("name", "reservoir") == "file":
        values["sampler"] = {"name": "file", "file": sampler["file"]}
    else:
        options = {key: sampler[key] for key in _RESERVOIR_OPTIONS if key in sampler}
        values["sampler"] = {"name": "reservoir", **options}


def _upgrade_relevance(values: Tree) -> None:
    values["relevance"] = {
        key: value
        for key, value in values["relevance"].items()
        if value or key not in _RELEVANCE_OPTIONS
    }


def _upgrade_source(values: Tree) -> None:
    data = values["data"]
    name = data.pop("name")
    options = {key: data.pop(key) for key in _TFDS_OPTIONS if key in data}
    if name in ("folder", "manifest"):
        data["source"] = {"name": name}
    elif name == "emoji":
        data["source"] = {"name": "emoji"}
    else:
        data["source"] = {"name": "tfds", "dataset": name, **options}


def _upgrade_loss(values: Tree) -> None:
    classes, loss = values.pop("classification", {}), values["loss"]
    if values["task"] == "classification":
        smoothing = classes.pop("label_smoothing", 0.1)
        values["loss"] = {"name": "cross_entropy", "label_smoothing": smoothing}
        values["task"] = {"name": "classification", **classes}
        return
    miner = {"name": loss["negatives"]}
    if miner["name"] == "batch_hard":
        miner["warmup_steps"] = loss.get("warmup_steps", 0)
    options = {"symmetric": loss.get("symmetric", False), "miner": miner}
    if loss.get("soft_margin", False):
        values["loss"] = {"name": "triplet_soft_margin", **options}
    else:
        values["loss"] = {"name": "triplet_hinge", "margin": loss["margin"], **options}
    values["task"] = {"name": "ranking"}


_CONVERSIONS: tuple[Callable[[Tree], None], ...] = (
    _upgrade_evaluation,
    _upgrade_sampler,
    _upgrade_relevance,
    _upgrade_source,
    _upgrade_loss,
)


def _flatten(tree: Mapping[str, Any]) -> Tree:
    """Returns the values of nested dicts by dotted key."""
    flat: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": part for name, part in _flatten(value).items()}
        else:
            flat[key] = value
    return flat


def _unflatten(flat: Mapping[str, Any]) -> Tree:
    """Returns nested dicts of values by dotted key."""
    tree: Tree = {}
    for key, value in flat.items():
        *parents, name = key.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
    return tree


def _is_part_of(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
