"""Plans: config files that say what to compare, and how their configs are changed."""

import ast
from collections.abc import Sequence
import importlib.util
import pathlib
from typing import Any

import ml_collections


def load_plan(path: pathlib.Path, names: Sequence[str]) -> Any:
    """Returns a config file as a module.

    Args:
      path: the file.
      names: what it must define beside `get_config`.

    Raises:
      SystemExit: there is no such file, or it does not define one of them.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SystemExit(f"error: {path} is no config file; give its path.")
    plan = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plan)
    for name in names:
        if not hasattr(plan, name):
            raise SystemExit(f"error: {path} has no {name}, and so nothing to compare.")
    return plan


def changed(
    config: ml_collections.ConfigDict, values: Sequence[str]
) -> ml_collections.ConfigDict:
    """Returns a config with NAME=VALUE changed, as flags would.

    Raises:
      SystemExit: there is no such name, or the value is of another type.
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
            raise SystemExit(f"error: {text}: there is no {name}. {hint}") from error
        except (TypeError, ValueError) as error:
            raise SystemExit(f"error: {text}: {error}") from error
    return config
