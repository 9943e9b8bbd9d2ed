"""Descriptions of configs: each key with its value and its comment."""

import ast
from collections.abc import Iterator, Mapping
import dataclasses
import io
import shlex
import tokenize

import ml_collections

from deeprank_jax.config.loading import config_folder, find_config, load_config
from deeprank_jax.registry import Registry, argument_doc

_WIDTH = 88


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a config.

    Attributes:
      name: Dotted name, without "config.".
      value: Value in the config.
      meaning: Meaning in one or two sentences; empty if nothing describes it.
    """

    name: str
    value: object
    meaning: str

    @property
    def section(self) -> str:
        """First part of the name, "" for a key without a section."""
        return self.name.split(".")[0] if "." in self.name else ""

    @property
    def flag(self) -> str:
        """The word that sets the value on a command line."""
        return f"--config.{self.name}={shlex.quote(str(self.value))}"


def describe_config(name: str, registries: Mapping[str, Registry] | None = None) -> str:
    """Returns every key of a config as a flag below its meaning.

    Args:
      name: Bare name of an installed config, or the path of a config file.
      registries: Registry of each section that names a kind, e.g. `"loss"`; options
        that configs/base.py does not describe are described by their kind.

    Raises:
      ConfigError: No config has this name.
    """
    source = find_config(name).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    lines = [f"# {line}".rstrip() for line in docstring.splitlines()]
    section = None
    for key in read_keys(load_config(name), registries):
        before, section = section, key.section
        if section != before:
            lines.append("")
        lines += _wrap(key.meaning)
        lines.append(key.flag)
    return "\n".join(lines)


def read_keys(
    config: ml_collections.ConfigDict,
    registries: Mapping[str, Registry] | None = None,
) -> list[Key]:
    """Returns the keys of a config with their meaning, those without a section first.

    Args:
      config: Config with the keys of configs/base.py.
      registries: Registry of each section that names a kind, see `describe_config`.
    """
    base = config_folder() / "base.py"
    comments = read_comments(base.read_text(encoding="utf-8"))
    order = {name: number for number, name in enumerate(comments)}
    keys = []
    for name, value in sorted(
        _flatten(config, ""), key=lambda item: _position(item[0], order)
    ):
        # A section's comment describes its first key.
        meaning = next(filter(None, (comments.pop(x, "") for x in _ancestry(name))), "")
        meaning = meaning or _describe_option(config, name, registries or {})
        keys.append(Key(name, value, meaning))
    return keys


def _position(name: str, order: Mapping[str, int]) -> tuple[bool, list[int]]:
    """Returns the sort key of a name: the order of configs/base.py, new names last."""
    position = [order.get(x, len(order)) for x in [*_ancestry(name)][::-1]]
    if name.endswith(".name"):  # The kind stands before its options.
        position[-1] = -1
    return "." in name, position


def _ancestry(name: str) -> Iterator[str]:
    """Yields a dotted name and the names of its sections, from the inside out."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _flatten(
    section: ml_collections.ConfigDict, prefix: str
) -> Iterator[tuple[str, object]]:
    """Yields name and value of each key; an empty section is a value."""
    for name, value in section.items():
        if not isinstance(value, ml_collections.ConfigDict):
            yield f"{prefix}{name}", value
        elif value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", {}


def _describe_option(
    config: ml_collections.ConfigDict, name: str, registries: Mapping[str, Registry]
) -> str:
    """Returns the meaning of a kind's option, by the documentation of the kind."""
    section, _, option = name.rpartition(".")
    parent, _, kind = section.rpartition(".")
    if section in registries:
        values = config
        for part in section.split("."):
            values = values[part]
        parent, kind = section, values.get("name")
    # Where a section's keys are names of kinds, the last of them is the kind.
    registry = registries.get(parent)
    if registry is None or kind not in registry:
        return ""
    return argument_doc(registry[kind], option)


def read_comments(source: str) -> dict[str, str]:
    """Returns the comment of each key of a config file, in order, "" without one.

    A comment stands above its key, beside it, or both. Sections may be set by
    functions of the file, as in `config.data = _data()`.

    Args:
      source: Source of a file with a `get_config()`.
    """
    return _CommentReader(source).comments


class _CommentReader:
    """Reads the comments of a config file by following its assignments."""

    def __init__(self, source: str):
        """Reads the comments."""
        self._above, self._beside = _find_comments(source)
        functions = (
            x for x in ast.parse(source).body if isinstance(x, ast.FunctionDef)
        )
        self._functions = {function.name: function for function in functions}
        self.comments: dict[str, str] = {}
        self._read_function("get_config", "")

    def _read_function(self, name: str, prefix: str) -> None:
        for node in self._functions[name].body:
            if isinstance(node, ast.Assign):
                # The first part is the variable that holds the config or the section.
                _, _, key = ast.unparse(node.targets[0]).partition(".")
                key = f"{prefix}.{key}" if prefix and key else prefix or key
                self._read_value(node.lineno, node.value, key)

    def _read_value(self, line: int, value: ast.expr, key: str) -> None:
        texts = self._above.get(line, ""), self._beside.get(value.end_lineno or 0, "")
        comment = " ".join(filter(None, texts))
        if key and (comment or key not in self.comments):
            self.comments[key] = comment
        if not isinstance(value, ast.Call):
            return
        function = getattr(value.func, "id", "")
        if function in self._functions:
            self._read_function(function, key)
        # Both `ConfigDict(dict(name="x"))` and `dict(name="x")` set keys.
        for call in (value, *(x for x in value.args if isinstance(x, ast.Call))):
            for item in call.keywords:
                if item.arg and item.lineno > value.lineno:
                    self._read_value(item.lineno, item.value, f"{key}.{item.arg}")


def _find_comments(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Returns comments by the line they stand above, and by the line they end."""
    above: dict[int, str] = {}
    beside: dict[int, str] = {}
    block, lines = "", source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text, row = token.string.removeprefix("# "), token.start[0]
        if token.type != tokenize.COMMENT:
            continue
        if not token.line.startswith(" " * token.start[1] + "#"):
            beside[row] = text
            continue
        block = f"{block} {text}".strip()
        if not lines[row].lstrip().startswith("#"):
            above[row + 1], block = block, ""
    return above, beside


def _wrap(text: str) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line] if text else []
