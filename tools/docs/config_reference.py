r"""Writer of docs/configuration.md: every key of a config, and every config file.

  python -m tools.docs.config_reference --out=docs/configuration.md

The meaning of a key is its comment in configs/base.py. A config file is described by
the first line of its docstring, and its "Expected:" or "Not run yet".
"""

import argparse
import ast
import pathlib
import re

from deeprank_jax.config import describe, load_config

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
_EXPECTED = re.compile(r"(?:^Expected:.*?(?=\n\n)|Not run yet.*?\.(?=\s))", re.M | re.S)
_HEAD = """\
<!-- Written by `python -m tools.docs.config_reference`; change configs/ instead. -->
# Configuration

A config file is a Python file with a `get_config()`. Every value is a flag, too:
`--config.batch_size=128`, or `--config.evaluation.gains="(0.02, 1.0)"` for a tuple.
`deeprank configs NAME` prints all keys of a config as flags. A section with a `name`
holds the options of that kind; another name drops them. A key that does not exist is an
error. A run keeps its config as `config.json` in its workdir, and a flag that would
make another run of it is refused.

## Keys

The defaults are those of `configs/base.py`; each config file changes some.
"""


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.config_reference")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("docs/configuration.md"),
        help="page to write (default: %(default)s)",
    )
    out = parser.parse_args().out
    out.write_text(make_page(), encoding="utf-8")
    print(f"Wrote {out}.")


def make_page() -> str:
    """Returns the page as Markdown."""
    tables: dict[str, list[str]] = {}
    for key in describe.read_keys(load_config(str(_CONFIGS / "base.py"))):
        default = f'"{key.value}"' if isinstance(key.value, str) else repr(key.value)
        row = f"| `{key.name}` | `{default}` | {_plain(key.meaning)} |"
        tables.setdefault(key.section, []).append(row)
    parts = [_HEAD]
    for section, rows in tables.items():
        title = f"config.{section}" if section else "The run"
        head = ["| key | default | meaning |", "|---|---|---|"]
        parts.append("\n".join([f"### {title}\n", *head, *rows, ""]))
    parts.append("## Config files\n")
    for path in sorted(_CONFIGS.glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        notes = re.findall(_EXPECTED, text)
        for words in (f"### `configs/{path.name}`", text.splitlines()[0], *notes):
            parts.append(_plain(" ".join(words.split())) + "\n")
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Returns text with Markdown's special characters escaped, unless it has code."""
    return re.sub(r"([|*<])", r"\\\1", text) if "`" not in text else text


if __name__ == "__main__":
    main()
