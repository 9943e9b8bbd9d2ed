r"""Writes docs/configuration.md: every key of a config, and every config file.

  python -m tools.docs.config_reference --out=docs/configuration.md

What a key means is its comment in configs/base.py, what a config file is for the first
line of its docstring, and what it gives its "Expected:", or its "Not run yet".
"""

import ast
from collections.abc import Iterator
import io
import pathlib
import re
import tokenize

from absl import app, flags

_OUT = flags.DEFINE_string("out", "docs/configuration.md", "The page to write.")

_CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
_TOLD = re.compile(r"(?:^Expected:.*?(?=\n\n)|Not run yet.*?\.(?=\s))", re.M | re.S)
_HEAD = """\
<!-- Written by `python -m tools.docs.config_reference`; change configs/, not this page. -->
# Configuration

A config file is a Python file with a `get_config()`. Every value is a flag, too:
`--config.batch_size=128`, or `--config.relevance.levels="(0.02, 1.0)"` for a tuple. A
key that is not there is an error. A run keeps its config as `config.json` in its
workdir, and a flag that would make another run of it is refused.

## Keys

The defaults are those of `configs/base.py`; each config file changes some.
"""


def main(argv: list[str]) -> None:
    """Writes the page."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    pathlib.Path(_OUT.value).write_text(make_page(), encoding="utf-8")
    print(f"Wrote {_OUT.value}.")


def make_page() -> str:
    """Returns the page as Markdown."""
    tables: dict[str, list[str]] = {}
    for key, default, comment in read_keys((_CONFIGS / "base.py").read_text("utf-8")):
        section = key.split(".")[0] if "." in key else ""
        row = f"| `{key}` | `{default}` | {_plain(comment)} |"
        tables.setdefault(section, []).append(row)
    parts = [_HEAD]
    for section, rows in tables.items():
        title = f"config.{section}" if section else "The run"
        head = ["| key | default | meaning |", "|---|---|---|"]
        parts.append("\n".join([f"### {title}\n", *head, *rows, ""]))
    parts.append("## Config files\n")
    for path in sorted(_CONFIGS.glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        told = re.findall(_TOLD, text)
        for words in (f"### `configs/{path.name}`", text.splitlines()[0], *told):
            parts.append(_plain(" ".join(words.split())) + "\n")
    return "\n".join(parts)


def read_keys(source: str) -> Iterator[tuple[str, str, str]]:
    """Yields the key, the default and the comment of each value that is set.

    Args:
      source: of a config file with a `get_config()`.
    """
    above, beside = _read_comments(source)
    (function,) = (x for x in ast.parse(source).body if isinstance(x, ast.FunctionDef))
    for node in function.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if not isinstance(node, ast.Assign) or not isinstance(target, ast.Attribute):
            continue
        key = ast.unparse(target).removeprefix("config.")
        value = node.value
        told = [above.get(node.lineno, ""), beside.get(node.end_lineno or 0, "")]
        default = " ".join((ast.get_source_segment(source, value) or "").split())
        default = default.replace("( ", "(").replace(", )", ",)")
        items = value.keywords if isinstance(value, ast.Call) else []
        if any(item.lineno in beside for item in items[:-1]):
            for item in items:
                segment = ast.get_source_segment(source, item.value) or ""
                yield f"{key}.{item.arg}", segment, beside.get(item.lineno, "")
        elif default == "ml_collections.ConfigDict()":
            if any(told):  # One that a user fills; the others are sections.
                yield key, "{}", told[0]
        else:
            # A placeholder is None, though of a type.
            default = "None" if "placeholder(" in default else default
            yield key, default, " ".join(filter(None, told))


def _read_comments(source: str) -> tuple[dict[int, str], dict[int, str]]:
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


def _plain(text: str) -> str:
    """Returns text whose signs mean nothing to Markdown, but for code and headings."""
    return re.sub(r"([|*<])", r"\\\1", text) if "`" not in text else text


if __name__ == "__main__":
    app.run(main)
