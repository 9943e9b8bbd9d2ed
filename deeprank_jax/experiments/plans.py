"""Experiment plans: config files that also define the runs to compare."""

import ast
from collections.abc import Sequence
import importlib.util
import pathlib
import types

import ml_collections

from deeprank_jax.errors import ConfigError


def load_plan(path: pathlib.Path, names: Sequence[str]) -> types.ModuleType:
    """Returns a config file as a module.

    Args:
      path: Path of the file.
      names: Names that it must define beside `get_config`.

    Raises:
      ConfigError: The file does not exist, or lacks a name.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a config file; give its path.")
    plan = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plan)
    for name in ("get_config", *names):
        if not hasattr(plan, name):
            raise ConfigError(
                f"{path} defines no {name}, which this experiment needs; give a config "
                "file with it, as configs/ablation_sampling.py."
            )
    return plan


def override(
    config: ml_collections.ConfigDict, values: Sequence[str]
) -> ml_collections.ConfigDict:
    """Returns a copy of a config with `KEY=VALUE` overrides applied.

    Raises:
      ConfigError: The config has no such key, or the value has another type.
    """
    config = config.copy_and_resolve_references().lock()
    for text in values:
        name, _, literal = text.partition("=")
        try:
            parsed = ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            parsed = literal
        try:
            config.update_from_flattened_dict({name: parsed})
        except KeyError as error:
            # The message lists the whole config; its last line is the suggestion.
            *_, hint = str(error.args[0]).splitlines()
            hint = hint if hint.startswith("Did you mean") else "see configs/base.py."
            raise ConfigError(f"{text}: there is no {name}. {hint}") from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{text}: {error}") from error
    return config
