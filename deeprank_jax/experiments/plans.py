"""Experiment plans: config files that also define the runs to compare."""

from collections.abc import Mapping, Sequence
import itertools
import pathlib
import types

import ml_collections

from deeprank_jax import config as config_lib
from deeprank_jax.config import apply_overrides
from deeprank_jax.config.loading import load_module
from deeprank_jax.errors import ConfigError
from deeprank_jax.registry import did_you_mean
from deeprank_jax.sampling.create import check_sampler
from deeprank_jax.training import experiment, tasks


def load_plan(path: str | pathlib.Path, names: Sequence[str]) -> types.ModuleType:
    """Returns a config file as a module.

    Args:
      path: Path of the file, or the bare name of an installed config.
      names: Names that it must define beside `get_config`.

    Raises:
      ConfigError: The file does not exist, or lacks a name.
    """
    plan = load_module(str(path))
    for name in ("get_config", *names):
        if not hasattr(plan, name):
            raise ConfigError(
                f"{plan.__file__} defines no {name}, which this experiment needs; give "
                "a config file with it, as configs/ablation_sampling.py."
            )
    return plan


def arm_pairs(plan: types.ModuleType) -> Sequence[tuple[str, str]] | None:
    """Returns the pairs of arms that an ablation compares, None for the usual ones.

    Raises:
      ConfigError: A name in PAIRS is not an arm.
    """
    pairs = getattr(plan, "PAIRS", None)
    for name in itertools.chain(*(pairs or ())):
        if name not in plan.ARMS:
            raise ConfigError(
                f"{plan.__file__}: PAIRS has {name!r}, which is not among its ARMS"
                f"{did_you_mean(name, plan.ARMS)}."
            )
    return pairs


def override(
    config: ml_collections.ConfigDict, values: Sequence[str]
) -> ml_collections.ConfigDict:
    """Returns a copy of a config with `KEY=VALUE` overrides applied.

    Raises:
      ConfigError: The config has no such key, or the value has another type.
    """
    config = config.copy_and_resolve_references().lock()
    pairs = [text.partition("=") for text in values]
    apply_overrides(config, [(key, value) for key, _, value in pairs])
    return config


def check_settings(
    where: str,
    config: ml_collections.ConfigDict,
    settings: Mapping[str, object],
    values: Sequence[str],
) -> ml_collections.ConfigDict:
    """Returns the config of a run, if its settings are valid.

    Args:
      where: Place of the settings, for the message.
      config: Config that the settings change.
      settings: Values by key.
      values: `KEY=VALUE` overrides of every run.

    Raises:
      ConfigError: A key does not exist, or a value, sampler, loss or task is not valid.
    """
    try:
        texts = [f"{key}={value}" for key, value in settings.items()]
        changed = override(config, [*texts, *values])
        config_lib.check_config(changed)
        check_sampler(changed)
        tasks.create_task(changed, experiment.create_run_relevance(changed))
    except ValueError as error:
        raise ConfigError(f"{error} It comes from {where} or an override.") from error
    return changed
