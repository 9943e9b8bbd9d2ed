"""Checks whether a run, an exported model or an index is as it was written."""

from collections.abc import Callable
import contextlib
import pathlib

from deeprank_jax import checksums
from deeprank_jax.errors import DataError, UserError
from deeprank_jax.inference import artifact
from deeprank_jax.search import store
from deeprank_jax.training.step_folders import StepFolders
from deeprank_jax.training.workdir import Workdir


def verify(path: pathlib.Path) -> dict[str, str | None]:
    """Returns what is wrong with each part of a folder, None if nothing is.

    The parts of a run are its checkpoints, and its config, results and whitening once
    it has begun or ended; a model and an index are one part each.

    Args:
      path: Workdir of a run, exported model, or index.

    Raises:
      DataError: The folder is none of these.
    """
    directory = Workdir(path).checkpoints
    if directory.is_dir():
        parts = StepFolders(directory).inspect()
        steps = {str(part.relative_to(path)): reason for part, reason in parts.items()}
        return steps | _verify_listed(path)
    if (path / checksums.CHECKSUMS).exists():
        return {"model": _error_of(lambda: artifact.read_artifact(path))}
    if (path / store.MANIFEST).exists():
        return {"index": _error_of(lambda: _read_index(path))}
    reason = "is no run, exported model or index" if path.is_dir() else "does not exist"
    raise DataError(
        f"{path} {reason}; give the --workdir of `deeprank train`, the --out of "
        "`deeprank export`, or that of `deeprank index`."
    )


def _verify_listed(path: pathlib.Path) -> dict[str, str | None]:
    """Returns what is wrong with each file that a run's list of checksums names."""
    list_path = Workdir(path).checksums
    if not list_path.exists():  # Of an earlier version, or just being written.
        return {}
    try:
        names = checksums.read_checksums(path, list_path.name)
    except (OSError, ValueError) as error:
        return {list_path.name: str(error)}
    return {
        name: _error_of(lambda name=name: checksums.check_listed(path / name))
        for name in sorted(names)
    }


def _error_of(read: Callable[[], object]) -> str | None:
    try:
        read()
    except (UserError, OSError, ValueError) as error:
        return str(error)
    return None


def _read_index(path: pathlib.Path) -> None:
    """Reads every file of an index, each of which is checked by its checksum."""
    with contextlib.closing(store.Store(path, writable=False)) as rows:
        for _ in rows.embeddings():
            pass
        rows.names()
        rows.deleted()
