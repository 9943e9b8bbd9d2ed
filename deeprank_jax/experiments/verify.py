"""Checks whether what the commands have stored is as it was written."""

from collections.abc import Callable
import contextlib
import pathlib

from deeprank_jax import checksums, files
from deeprank_jax.errors import DataError, UserError
from deeprank_jax.inference import artifact, embedding_parts
from deeprank_jax.search import store
from deeprank_jax.training.step_folders import StepFolders
from deeprank_jax.training.workdir import Workdir


def verify(path: pathlib.Path) -> dict[str, str | None]:
    """Returns what is wrong with each part of a folder, None if nothing is.

    The parts of a run are its checkpoints, and its config, results and whitening once
    it has begun or ended; a model, an index, a table of embeddings and a similarity are
    one part each; those of an unfinished table are its files.

    Args:
      path: Workdir of a run, exported model, index, table of embeddings, the folder
        `NAME.parts` of an unfinished one, or trained similarity.

    Raises:
      DataError: The path is none of these.
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
    if (path / embedding_parts.IDENTITY).exists():
        return _verify_parts(path)
    if path.suffix == ".parquet" and path.is_file():
        return {"table": _error_of(lambda: _read_table(path))}
    if path.suffix == ".npz" and path.is_file():
        return {"similarity": _error_of(lambda: _read_similarity(path))}
    kinds = "is no run, exported model, index, table of embeddings or similarity"
    reason = kinds if path.exists() else "does not exist"
    raise DataError(
        f"{path} {reason}; give the --workdir of `deeprank train`, or the --out of "
        "`deeprank export`, `deeprank index`, `deeprank embed` or "
        "`deeprank train-similarity`."
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
        name: _error_of(
            lambda name=name: checksums.check_listed(path / name, folder=path)
        )
        for name in sorted(names)
    }


def _error_of(read: Callable[[], object]) -> str | None:
    try:
        read()
    except (UserError, OSError, ValueError) as error:
        return str(error)
    return None


def _verify_parts(path: pathlib.Path) -> dict[str, str | None]:
    """Returns what is wrong with each part of an unfinished table."""
    identity = path / embedding_parts.IDENTITY
    parts = {identity.name: _error_of(lambda: files.read_json(identity))}
    for part in sorted(path.glob(embedding_parts.PATTERN)):
        parts[part.name] = _error_of(lambda part=part: embedding_parts.read_part(part))
    return parts


def _read_table(path: pathlib.Path) -> None:
    from deeprank_jax.inference import embedding_table  # It needs pyarrow.

    embedding_table.read_table(path)


def _read_similarity(path: pathlib.Path) -> None:
    from deeprank_jax.similarities import stored  # It needs JAX.

    stored.load_similarity(path)


def _read_index(path: pathlib.Path) -> None:
    """Reads every file of an index, each of which is checked by its checksum."""
    with contextlib.closing(store.Store(path, writable=False)) as rows:
        for _ in rows.embeddings():
            pass
        rows.names()
        rows.deleted()
