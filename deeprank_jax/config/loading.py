"""Config files by bare name or path."""

import ast
from collections.abc import Sequence
import hashlib
import importlib
import importlib.util
import pathlib
import sys
import traceback
from types import ModuleType

import ml_collections

from deeprank_jax.config import overrides as overrides_lib
from deeprank_jax.errors import ConfigError
from deeprank_jax.registry import did_you_mean

_PACKAGE = "deeprank_jax.configs"


def load_config(name: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Loads a config and applies overrides from a command line.

    Args:
      name: Bare name of an installed config, e.g. `"emoji"`, or the path of a Python
        file that defines `get_config()`.
      overrides: Words of the command line, `"--config.KEY=VALUE"` or
        `"--config.KEY", "VALUE"`.

    Returns:
      The config, locked: a misspelt key raises an error.

    Raises:
      ConfigError: No config has this name, the file cannot be run, or an override
        does not fit the config.
    """
    module = load_module(name)
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError(
            f"{module.__file__} defines no get_config(); write one that returns a "
            "ml_collections.ConfigDict, as configs/folder.py does."
        )
    config = _run(module.__file__ or name, module.get_config)
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(
            f"{module.__file__}: get_config() returned {type(config).__name__}; return "
            "a ml_collections.ConfigDict."
        )
    check_keys(config)
    config.lock()
    overrides_lib.apply_overrides(config, overrides_lib.parse_words(overrides))
    with config.unlocked():  # A config of the user's own may lack the key.
        config.plugins = import_plugins(config.get("plugins") or ())
    return config


def check_keys(config: ml_collections.ConfigDict, *, complete: bool = False) -> None:
    """Checks the keys of a config against those of `configs/base.py`.

    Args:
      config: Whole configuration; sections of plug-ins may hold any key.
      complete: True if no key may be missing.

    Raises:
      ConfigError: A key is not known, or missing.
    """
    base = _import_file(config_folder() / "base.py").get_config()
    free = (*overrides_lib.PLUGIN_SECTIONS, *overrides_lib.OPEN_SECTIONS)
    # A section within another belongs to a kind, such as the miner to a loss.
    is_option = lambda key: any(key.startswith(f"{x}.") for x in free)
    known = set(overrides_lib.keys_of(base))
    for key in overrides_lib.keys_of(config):
        if key not in known and key not in free and not is_option(key):
            raise ConfigError(
                f"config.{key} is not a key of the config"
                f"{did_you_mean(key, dict.fromkeys(known))}; configs/base.py has all."
            )
    for key in sorted(known - set(overrides_lib.keys_of(config))) if complete else ():
        if not is_option(key):
            raise ConfigError(
                f"config.{key} is missing; start from the config that "
                "deeprank_jax.configs.base.get_config() returns."
            )


def import_plugins(plugins: Sequence[str]) -> tuple[str, ...]:
    """Imports files or modules that register kinds of the user's own.

    Args:
      plugins: Paths of Python files, or dotted names of modules.

    Returns:
      The same, with absolute paths.

    Raises:
      ConfigError: One of them does not exist, or cannot be run.
    """
    absolute = []
    for plugin in plugins:
        if not plugin.endswith(".py"):
            _run(plugin, lambda name=plugin: importlib.import_module(name))
            absolute.append(plugin)
            continue
        path = pathlib.Path(plugin).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(
                f"config.plugins: {path} does not exist; give the path of the file "
                "that registers your kinds, or leave it out if nothing of it is used."
            )
        _import_file(path)
        absolute.append(str(path))
    return tuple(absolute)


def load_module(name: str) -> ModuleType:
    """Imports a config file, which may define more than `get_config()`.

    Args:
      name: Bare name of an installed config, or the path of a Python file.

    Raises:
      ConfigError: No config has this name, or the file cannot be run.
    """
    return _import_file(find_config(name))


def _import_file(path: pathlib.Path) -> ModuleType:
    """Imports a file, again if it was imported before."""
    # The name of the file alone could be that of an installed package.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses look their module up.
    _run(path, lambda: spec.loader.exec_module(module))
    return module


def find_config(name: str) -> pathlib.Path:
    """Returns the file of a config.

    Args:
      name: Bare name of an installed config, or the path of a Python file.

    Raises:
      ConfigError: No such config exists; the message gives the nearest names.
    """
    path = pathlib.Path(name).expanduser()
    if path.suffix == ".py" and path.is_file():
        return path
    names = list_configs()
    if name in names:
        return config_folder() / f"{name}.py"
    if path.suffix == ".py" or len(path.parts) > 1:
        hint = did_you_mean(path.stem, names)
        if path.exists():
            raise ConfigError(
                f"--config={name} is not a Python file; it must end in .py."
            )
        raise ConfigError(
            f"--config={name}: no such file{hint}; correct the path, or give a name "
            "that `deeprank configs` lists."
        )
    raise ConfigError(
        f"--config={name!r} is not a config{did_you_mean(name, names)}; choose one of "
        f"{', '.join(sorted(names))}, or give the path of a file."
    )


def list_configs() -> dict[str, str]:
    """Returns the installed configs: by name the first line of their docstrings."""
    names = {}
    for path in sorted(config_folder().glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if path.stem != "base":
            names[path.stem] = (docstring or "").split("\n", 1)[0]
    return names


def config_folder() -> pathlib.Path:
    """Returns the folder of the installed configs."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        return pathlib.Path(next(iter(spec.submodule_search_locations)))
    # A checkout that is not installed.
    return pathlib.Path(__file__).parents[2] / "configs"


def _run(path: str | pathlib.Path, function):
    """Runs code of a config file, and puts the line of an error into its message."""
    try:
        return function()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        where = f"{path}:{lines[-1]}" if lines else f"{path}"
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
