"""Discovery of the commands: every module of this folder with `add_arguments`."""

import argparse
import importlib
import pathlib
import re
from typing import Protocol, cast

from deeprank_jax import cli
from deeprank_jax.cli.output import Result

_COMMAND = re.compile(r'\A[rR]?"""(?P<first>[^\n]*?)(?:"""|\n).*?^def add_arguments\(',
                      re.MULTILINE | re.DOTALL)  # fmt: skip


class Command(Protocol):
    """Module of a command."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's arguments."""

    def run(self, options: argparse.Namespace) -> Result:
        """Runs the command."""


def list_commands() -> dict[str, str]:
    """Returns the help text of each command by name, without importing any."""
    helps = {}
    folders = map(pathlib.Path, cli.__path__)
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        match = _COMMAND.match(path.read_text(encoding="utf-8"))
        if match:
            helps[path.stem.replace("_", "-")] = match["first"]
    return helps


def load_command(name: str) -> Command:
    """Imports the module of a command.

    Args:
      name: Name of the command, one of `list_commands`.
    """
    module = f"{__package__}.{name.replace('-', '_')}"
    return cast(Command, importlib.import_module(module))
