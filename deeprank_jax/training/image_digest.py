"""Digests of a run's images, by which a change of their pixels is noticed.

The contents of some images of each split, and the sizes of its files, of a sample if
they are many, are digested; names and labels have the fingerprint of the records.
"""

from collections.abc import Mapping
import hashlib
import os
import pathlib

from absl import logging
import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.data import decode
from deeprank_jax.data.records import Records

# Images per split whose content is read. A change of 2 % of them is missed in 6 of
# 1,000 cases.
_NUM_READ = 256
# Files per split whose size is read.
_NUM_SIZES = 100_000


def digest_images(records: Mapping[str, Records]) -> dict[str, str]:
    """Returns a digest of the images of each split.

    Args:
      records: Records by split.
    """
    return {name: _digest(split) for name, split in records.items()}


def note_images(path: pathlib.Path, digests: Mapping[str, str]) -> None:
    """Writes the digests of a run that begins, or warns if they have changed.

    Args:
      path: File of the digests.
      digests: Digest of each split.
    """
    if not path.exists():
        files.write_json(path, checksums.seal_json(digests))
    elif changed := changed_splits(path, digests):
        logging.warning(
            "The images of %s have changed since the run began, under the same names: "
            "its earlier steps and metrics are those of other images. Give another "
            "--workdir, or the images the run began with.",
            " and ".join(changed),
        )


def changed_splits(path: pathlib.Path, digests: Mapping[str, str]) -> list[str]:
    """Returns the splits whose images are not those of the run.

    Args:
      path: File of the digests; without it, as earlier versions left a run, none.
      digests: Digest of each split now.
    """
    try:
        noted = checksums.unseal_json(files.read_json(path))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        logging.warning(
            "%s is damaged (%s): a change of the images is not noticed. Delete it.",
            path,
            error,
        )
        return []
    return [name for name, x in digests.items() if noted.get(name) != x]


def _digest(records: Records) -> str:
    digest = hashlib.sha256(records.fingerprint.encode())
    order = np.random.default_rng(0).permutation(len(records)).tolist()
    if records.path is not None:
        for index in sorted(order[:_NUM_SIZES]):
            digest.update(b"%d " % _size(records.path(index)))
    for index in order[:_NUM_READ]:
        try:
            content = records.read(index)
        except (OSError, decode.BadImageError):
            content = b""
        if isinstance(content, np.ndarray):
            content = content.tobytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
