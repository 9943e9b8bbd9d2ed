"""Configs: loading, overriding, checking and comparing them.

A config is an `ml_collections.ConfigDict`; `configs/base.py` has every key. The
sections in `PLUGIN_SECTIONS` name a kind and hold that kind's options.
"""

from deeprank_jax.config.checks import check_config, check_levels, resolve_config
from deeprank_jax.config.loading import (
    check_keys,
    import_plugins,
    list_configs,
    load_config,
)
from deeprank_jax.config.overrides import PLUGIN_SECTIONS, apply_overrides
from deeprank_jax.config.saved import (
    FIRST_STAGE,
    check_same_run,
    flatten_config,
    read_run_config,
    saved_values,
    upgrade_config,
)

__all__ = [
    "FIRST_STAGE",
    "PLUGIN_SECTIONS",
    "apply_overrides",
    "check_config",
    "check_keys",
    "check_levels",
    "check_same_run",
    "flatten_config",
    "import_plugins",
    "list_configs",
    "load_config",
    "read_run_config",
    "resolve_config",
    "saved_values",
    "upgrade_config",
]
