"""The version of this project, and the commit that is checked out."""

import importlib.metadata
import pathlib
import subprocess


def number() -> str:
    """Returns the installed version, or "0+unknown" in a checkout without metadata."""
    try:
        return importlib.metadata.version("deeprank-jax")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def commit() -> str:
    """Returns the commit, with "-dirty" if files differ from it; or "unknown"."""
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return "unknown"
    try:
        git = ["git", "-C", str(root)]
        process = subprocess.run(
            [*git, "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return process.stdout.strip()
