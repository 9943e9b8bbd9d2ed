"""The commit of this project that wrote a file."""

import pathlib
import subprocess


def commit() -> str:
    """Returns the checked-out commit, "-dirty" if files differ from it; or "unknown"."""
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
