"""Errors of checkpoints that cannot be written, with a remedy for their cause."""

import pathlib
import shutil

from deeprank_jax.errors import CheckpointError

# Words of a cause, and its remedy; a full disk is the usual one.
_REMEDIES = {
    "open files": "Allow more open files (ulimit -n)",
    "start new thread": "Allow more memory and processes (ulimit -v and -u)",
}


def save_error(directory: pathlib.Path, error: Exception) -> CheckpointError:
    """Returns the error of a save that failed, with the last step that is safe.

    Args:
      directory: Folder of the checkpoints.
      error: Error of the library that writes them.
    """
    free = shutil.disk_usage(directory).free / 2**20
    # Not by the manager: its idea of what is there may be what failed.
    steps = [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
    safe = f"step {max(steps)} is the last" if steps else "none was saved before"
    remedies = (text for words, text in _REMEDIES.items() if words in str(error))
    return CheckpointError(
        f"{directory}: the checkpoint could not be written ({free:,.0f} MiB free on "
        f"that disk); {safe}. {next(remedies, 'Make room')} and run the same command "
        f"again to go on from there. The cause: {describe_cause(error)}."
    )


def describe_cause(error: Exception) -> str:
    """Returns the end of the first line, the innermost of a chain of causes."""
    lines = str(error).splitlines() or [type(error).__name__]
    return ": ".join(lines[0].rsplit(": ", 2)[-2:])
