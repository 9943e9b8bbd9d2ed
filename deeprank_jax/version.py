"""Which version of this project made a file?"""

import pathlib
import subprocess


def commit() -> str:
    """Returns the commit that is checked out, `-dirty` if it is not all; or unknown."""
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return "unknown"
    try:
        git = ["git", "-C", str(root)]
        done = subprocess.run(
            [*git, "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
