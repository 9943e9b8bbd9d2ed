"""Lists the configs, or prints every key of one with its meaning.

For example:
  deeprank configs
  deeprank configs emoji
"""

import argparse
import importlib

from deeprank_jax.cli.output import Result, format_table
from deeprank_jax.registry import Registry

USES_JAX = False
# Registry of each section of the config that names kinds, as "module:NAME".
REGISTRIES = {
    "task": "training.tasks:TASKS",
    "relevance": "relevance:RELEVANCES",
    "sampler": "sampling.create:SAMPLERS",
    "model.trunk": "models:TRUNKS",
    "loss": "losses:LOSSES",
    "loss.miner": "losses:MINERS",
    "data.source": "data:SOURCES",
    "evaluation.evaluators": "evaluation:EVALUATORS",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "name", metavar="NAME", nargs="?",
        help="name of a config, or path of a config file; all are listed without it",
    )  # fmt: skip


def run(options: argparse.Namespace) -> Result:
    """Lists or describes."""
    # The package itself loads relevances and samplers, which a list does not need.
    from deeprank_jax.config import loading

    if options.name is None:
        configs = loading.list_configs()
        rows = list(configs.items())
        return Result(configs, format_table(("config", "description"), rows))
    from deeprank_jax.config import describe

    config = loading.load_config(options.name)
    registries = _registries()
    keys = describe.read_keys(config, registries)
    values = {
        key.name: {"value": key.value, "meaning": key.meaning, "flag": key.flag}
        for key in keys
    }
    return Result(values, describe.describe_config(options.name, registries))


def _registries() -> dict[str, Registry]:
    """Returns the registry of each section of the config that names a kind."""
    # They import JAX, which the list of configs does not need.
    registries = {}
    for section, name in REGISTRIES.items():
        module, _, attribute = name.partition(":")
        registry = getattr(importlib.import_module(f"deeprank_jax.{module}"), attribute)
        registries[section] = registry
    return registries
