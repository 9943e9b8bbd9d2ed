"""Overrides of a config from a command line: `--config.KEY=VALUE`."""

import ast
from collections.abc import Iterator, Sequence
import math
from typing import Any

import ml_collections

from deeprank_jax.errors import ConfigError
from deeprank_jax.registry import did_you_mean

# Each names a kind and holds its options: a new name drops the options before it.
PLUGIN_SECTIONS = (
    "task",
    "relevance",
    "sampler",
    "model.trunk",
    "loss",
    "loss.miner",
    "data.source",
)
# Sections whose keys are names of kinds, each with the options of that kind.
OPEN_SECTIONS = ("evaluation.evaluators",)

_PREFIX = "--config."
# Lists of words, which need no quotes.
_WORD_LISTS = ("plugins",)
_TRUTHS = {
    "true": True,
    "yes": True,
    "1": True,
    "false": False,
    "no": False,
    "0": False,
}
_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    tuple: "values in parentheses, e.g. '(1, 5)'",
}


def parse_words(words: Sequence[str]) -> list[tuple[str, str]]:
    """Returns key and text of each override.

    Args:
      words: Words of a command line, `"--config.KEY=VALUE"` or
        `"--config.KEY", "VALUE"`.

    Raises:
      ConfigError: A word is not an override, or lacks its value.
    """
    pairs, rest = [], iter(words)
    for word in rest:
        if not word.startswith(_PREFIX):
            raise ConfigError(f"{word!r} is not of the form --config.KEY=VALUE.")
        key, equals, text = word.removeprefix(_PREFIX).partition("=")
        if not equals:
            text = next(rest, None)
            if text is None:
                raise ConfigError(
                    f"--config.{key} needs a value: --config.{key}=VALUE."
                )
        pairs.append((key, text))
    return pairs


def apply_overrides(
    config: ml_collections.ConfigDict, pairs: Sequence[tuple[str, str]]
) -> None:
    """Changes a config in place.

    Names of kinds are set before their options, in whatever order they are given.

    Args:
      config: Whole configuration.
      pairs: Dotted key and text of each override.

    Raises:
      ConfigError: A key is not in the config or a value is not of its type; the
        message gives the nearest keys, or the expected type.
    """
    names = {f"{section}.name" for section in PLUGIN_SECTIONS}
    pairs = [
        (f"{key}.name" if key in PLUGIN_SECTIONS and text.isidentifier() else key, text)
        for key, text in pairs
    ]
    # Outer names first: they drop the sections within.
    order = lambda pair: (pair[0] not in names, pair[0].count(".") * (pair[0] in names))
    for key, text in sorted(pairs, key=order):
        with config.unlocked():
            _apply(config, key, text)


def _apply(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    *parents, last = key.split(".")
    section, path = config, ""
    for parent in parents:
        path = f"{path}.{parent}".lstrip(".")
        if parent not in section and _is_open(path):
            section[parent] = ml_collections.ConfigDict()
        if parent not in section or not isinstance(
            section[parent], ml_collections.ConfigDict
        ):
            raise ConfigError(_no_key(config, key))
        section = section[parent]
    if last == "name" and path in PLUGIN_SECTIONS:
        if section.get("name") != text:
            for option in list(section):
                del section[option]
        section.name = text
    elif path not in OPEN_SECTIONS and _is_value(section, last):
        section.update({last: _read(text, section, last, key)})
    elif path in OPEN_SECTIONS:
        _set_kind(section, last, key, text)
    elif key in OPEN_SECTIONS:
        del section[last]
        section[last] = ml_collections.ConfigDict()
        for name, options in _options(_literal(text), key).items():
            section[last][name] = _options(options, f"{key}.{name}")
    elif key in PLUGIN_SECTIONS:
        options = _literal(text)
        if not isinstance(options, dict) or "name" not in options:
            raise ConfigError(
                f"config.{key}={text} is neither a name nor dict(name=..., ...)."
            )
        for option in list(section.get(last) or ()):
            del section[last][option]
        section[last] = ml_collections.ConfigDict(options)
    elif _is_open(key):
        section[last] = _literal(text)
    elif last in section:
        raise ConfigError(
            f"config.{key} is a section; give one of its keys, e.g. "
            f"--config.{key}.{next(iter(section[last]))}=VALUE."
        )
    else:
        raise ConfigError(_no_key(config, key))


def _is_value(section: ml_collections.ConfigDict, name: str) -> bool:
    return name in section and not isinstance(section[name], ml_collections.ConfigDict)


def _set_kind(
    section: ml_collections.ConfigDict, name: str, key: str, text: str
) -> None:
    """Adds a kind to a section of several, or removes it for `None` and `false`."""
    value = _literal(text)
    if value is not None and value is not False:
        section[name] = _options({} if value is True else value, key)
    elif name in section:
        del section[name]


def _options(value: Any, key: str) -> dict[str, Any]:
    """Returns the options of a kind.

    Raises:
      ConfigError: The value is not a dict.
    """
    if not isinstance(value, dict):
        raise ConfigError(
            f"config.{key} needs options, e.g. --config.{key}='dict(k=5)' or "
            f"--config.{key}=true for the defaults; got {value!r}."
        )
    return value


def _is_open(key: str) -> bool:
    """Returns whether a key that is not in the config may be added."""
    starts = (*PLUGIN_SECTIONS, *OPEN_SECTIONS)
    return key in PLUGIN_SECTIONS or any(key.startswith(f"{s}.") for s in starts)


def _no_key(config: ml_collections.ConfigDict, key: str) -> str:
    keys = dict.fromkeys(keys_of(config))
    return f"config.{key} is not a key of the config{did_you_mean(key, keys)}."


def keys_of(section: ml_collections.ConfigDict, prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of a config, those of sections included."""
    for name, value in section.items():
        yield f"{prefix}{name}"
        if isinstance(value, ml_collections.ConfigDict):
            yield from keys_of(value, f"{prefix}{name}.")


def _read(text: str, section: ml_collections.ConfigDict, name: str, key: str) -> Any:
    """Returns a value of the type that a key has.

    Raises:
      ConfigError: The text is not of that type.
    """
    kind = section.get_type(name)
    if section[name] is None and text == "None":
        return None
    try:
        if kind is bool:
            return _TRUTHS[text.lower()]
        if kind is int:
            return int(text)
        if kind is float:
            value = float(text)
            if not math.isfinite(value):
                raise ValueError
            return value
        if key in _WORD_LISTS and not text.startswith(("(", "[")):
            return tuple(word.strip() for word in text.split(","))
        if kind in (tuple, list):
            value = _evaluate(ast.parse(text, mode="eval").body)
            return tuple(value) if isinstance(value, (tuple, list)) else (value,)
    except (KeyError, ValueError, SyntaxError) as error:
        expected = _EXPECTED[tuple if kind is list else kind]
        raise ConfigError(f"config.{key}={text} is not {expected}.") from error
    return text if kind is str else _literal(text)


def _literal(text: str) -> Any:
    """Returns a Python literal, `dict(...)` among them; any other text as it is."""
    try:
        return _evaluate(ast.parse(text, mode="eval").body)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)


def _evaluate(node: ast.expr) -> Any:
    """Evaluates a literal.

    Raises:
      ValueError: The expression is not a literal.
    """
    if isinstance(node, ast.Call):
        if getattr(node.func, "id", "") != "dict" or node.args:
            raise ValueError("only dict(...) may be called")
        return {word.arg: _evaluate(word.value) for word in node.keywords if word.arg}
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_evaluate(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) if key else None for key in node.keys]
        return dict(zip(keys, map(_evaluate, node.values), strict=True))
    return ast.literal_eval(node)
