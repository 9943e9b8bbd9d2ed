r"""Writer of docs/commands.md: every command with its example and its arguments.

  python -m tools.docs.command_reference --out=docs/commands.md

It is the text of `deeprank COMMAND --help`, and which arguments exclude each other.
"""

import argparse
from collections.abc import Iterator
import pathlib
import re
import textwrap

from deeprank_jax.cli import commands
from deeprank_jax.cli.__main__ import create_parser

_HEAD = """\
<!-- Written by `python -m tools.docs.command_reference`; change deeprank_jax/cli/. -->
# Commands

The text is that of `deeprank COMMAND --help`. Every command takes `--json`, too, which
prints its result as JSON. The exit status is 0 for success, 1 if an input or file
cannot be used and 2 for wrong arguments; `deeprank --help` lists the others.

Commands with `--config` also take every key of the config as a flag,
`--config.KEY=VALUE`; [Configuration](configuration.md) lists them.
"""
# Lines of a description that are indented: commands.
_EXAMPLE = re.compile(r"(?:^  .*\n?)+", re.MULTILINE)


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.command_reference")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("docs/commands.md"),
        help="page to write (default: %(default)s)",
    )
    out = parser.parse_args().out
    out.write_text(make_page(), encoding="utf-8")
    print(f"Wrote {out}.")


def make_page() -> str:
    """Returns the page as Markdown."""
    names = commands.list_commands()
    parts = [_HEAD, "| command | what it does |", "|---|---|"]
    parts += [
        f"| [`{name}`](#{name}) | {_cell(text.rstrip('.'))} |"
        for name, text in names.items()
    ]
    for name in names:
        parts.append(_describe(name))
    return "\n".join(parts) + "\n"


def _describe(name: str) -> str:
    """Returns the section of one command."""
    parser = _find_parser(name)
    text = (parser.description or "").replace("For example:\n", "")
    fenced = _EXAMPLE.sub(
        lambda match: f"\n```text\n{textwrap.dedent(match[0]).rstrip()}\n```\n", text
    )
    lines = [f"\n## {name}\n", re.sub(r"\n{3,}", "\n\n", fenced).strip()]
    rows = list(_rows(parser))
    if rows:
        lines += ["\n| argument | default | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines)


def _find_parser(name: str) -> argparse.ArgumentParser:
    """Returns the parser of one command."""
    for action in create_parser(name)._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[name]
    raise ValueError(f"there is no command {name!r}.")


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields a row of the table for each argument of a command."""
    groups = {x: y for y in parser._mutually_exclusive_groups for x in y._group_actions}
    for action in parser._actions:
        if action.dest in ("help", "json") or action.help == argparse.SUPPRESS:
            continue
        text = (action.help or "") % {**vars(action), "prog": "deeprank"}
        if (group := groups.get(action)) is not None:
            others = [
                f"`{x.option_strings[-1]}`" for x in group._group_actions if x != action
            ]
            text += f"; not with {' or '.join(others)}"
            if group.required:
                text += ", and one of them is needed"
        words, default = _cell(_spell(action)), _default(action)
        yield f"| `{words}` | {default} | {_cell(text)} |"


def _spell(action: argparse.Action) -> str:
    """Returns an argument as it is written on a command line."""
    name = str(action.metavar or action.dest.upper())
    if action.choices:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    if action.option_strings:
        value = "" if action.nargs == 0 else f"={name}"
        return ", ".join(f"{x}{value}" for x in action.option_strings)
    if isinstance(action.nargs, int):
        return " ".join([name] * action.nargs)
    return f"{name} ..." if action.nargs in ("*", "+") else name


def _default(action: argparse.Action) -> str:
    """Returns the default of an argument as a table shows it."""
    if action.required:
        return "needed"
    if action.nargs == 0 or action.default in (None, "", argparse.SUPPRESS, [], ()):
        return ""
    return f"`{action.default}`"


def _cell(text: str) -> str:
    """Returns text on one line, without what would end a cell."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
