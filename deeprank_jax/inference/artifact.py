"""Files of an exported model, written atomically and checked when they are read.

A model is a folder. `SHA256SUMS` lists the checksums of all its other files in the
format of `sha256sum`, so that `sha256sum --check SHA256SUMS` checks them, too.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy

from deeprank_jax import checksums, errors, files
from deeprank_jax.errors import ArtifactError
from deeprank_jax.files import locks

INFO = "model.json"
WEIGHTS = "weights.safetensors"
STABLEHLO = "model.stablehlo"
ONNX = "model.onnx"
CARD = "README.md"
CONFIG = "config.json"
USE = "embed.py"
FORMAT = 1
# Weights of two billion parameters.
_MAX_BYTES = 2**33


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artifact:
    """An exported model.

    Attributes:
      path: Folder of the model.
      info: Contents of `model.json`.
      checksums: SHA-256 of its files by name.
    """

    path: pathlib.Path
    info: dict[str, Any]
    checksums: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    def file(self, name: str) -> pathlib.Path:
        """Returns the path of one of the model's files."""
        return self.path / name


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Opens an exported model and checks every file of it.

    Raises:
      ArtifactError: There is no such folder, or a file is missing or changed.
    """
    folder = pathlib.Path(path).expanduser()
    if not (folder / checksums.CHECKSUMS).is_file():
        is_folder = folder.is_dir()
        reason = "is not an exported model" if is_folder else "there is no such folder"
        raise ArtifactError(
            f"{folder}: {reason} (it has no {checksums.CHECKSUMS}); write one with "
            "`deeprank export --workdir=RUN --out=FOLDER`."
        )
    sums = _read_checksums(folder)
    _check_sizes(folder, list(sums))
    for name, checksum in sums.items():
        file = folder / name
        if checksums.file_digest(file) != checksum:
            raise ArtifactError(
                f"{file} has changed since the export (its checksum differs from the "
                f"one in {checksums.CHECKSUMS}); {_how_to_copy(file)}."
            )
    try:
        info = files.read_json(folder / INFO)
        version = info["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / INFO} cannot be read ({error}); export the run again."
        ) from error
    if version != FORMAT:
        raise ArtifactError(
            f"{folder} has the format {version}, and this deeprank_jax reads {FORMAT}: "
            "install the version that wrote it, or export the run again."
        )
    return Artifact(path=folder, info=info, checksums=sums)


def read_weights(model: Artifact) -> dict[str, np.ndarray]:
    """Returns the weights of a model by name.

    Raises:
      ArtifactError: They cannot be read.
    """
    path = model.file(WEIGHTS)
    try:
        return safetensors.numpy.load_file(path)
    # A type that NumPy lacks raises any error.
    except Exception as error:
        raise ArtifactError(
            f"{path} cannot be read ({error!s:.200}); copy the whole folder again."
        ) from error


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Gives a scratch folder that is moved to `path` once all files are written.

    After an error `path` is as it was before.

    Raises:
      ArtifactError: `path` exists already, or cannot be written.
      LockedError: Another process writes it.
    """
    path = pathlib.Path(path).expanduser().absolute()
    _check_new(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            locks.beside(path),
            files.scratch_folder(
                path.parent, prefix=f".{files.with_room(path.name)}."
            ) as scratch,
        ):
            _check_new(path)  # Another process may just have written it.
            yield scratch
            checksums.write_checksums(scratch)
            scratch.chmod(0o755)
            scratch.replace(path)
    except errors.UserError:
        raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def _check_new(path: pathlib.Path) -> None:
    """Checks that nothing but an empty folder is at a path.

    Raises:
      ArtifactError: Something else is.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ArtifactError(
            f"{path} exists already; give another --out, or move it away."
        )


def fingerprint(
    folder: pathlib.Path, preprocessing: dict[str, Any], embed_prefix: int = 0
) -> str:
    """Returns an identifier of the embeddings of a model.

    Args:
      folder: Folder with the weights.
      preprocessing: Options of the preprocessing of images.
      embed_prefix: Number of an embedding's first numbers that are kept; 0 for all.
    """
    content = json.dumps(preprocessing, sort_keys=True) + checksums.file_digest(
        folder / WEIGHTS
    )
    if embed_prefix:
        content += f"first {embed_prefix}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _cannot_write(path: pathlib.Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be written ({error.strerror or error}), and nothing was. Free "
        "some disk space, or give an --out that you may write to."
    )


def _check_sizes(folder: pathlib.Path, names: Sequence[str]) -> None:
    """Checks the listed files before they are read."""
    total = 0
    for name in names:
        file = folder / name
        # A link may lead anywhere, as in caches of downloads: what it leads to must be
        # a file, and have the checksum.
        if not file.is_file():
            raise ArtifactError(f"{file} is missing; {_how_to_copy(file)}.")
        total += file.stat().st_size
    if total > _MAX_BYTES:
        raise ArtifactError(
            f"{folder} has {total:,} bytes, more than the limit of {_MAX_BYTES:,} for "
            "a model; remove what is no part of it, or export the run again."
        )


def _how_to_copy(file: pathlib.Path) -> str:
    command = " by `cp -rL`, which follows links" if file.is_symlink() else ""
    return f"copy the whole folder again{command}"


def _read_checksums(folder: pathlib.Path) -> dict[str, str]:
    path = folder / checksums.CHECKSUMS
    try:
        sums = checksums.read_checksums(folder)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: {error}; copy the whole folder again.") from error
    for name in (INFO, CONFIG, WEIGHTS, STABLEHLO):
        if name not in sums:
            raise ArtifactError(f"{path} does not list {name}; copy the folder again.")
    return sums
