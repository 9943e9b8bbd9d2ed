"""Keeps features that took long, and notices when they are no longer what they were.

Convention: what decides the numbers is the key, the key's hash is in the file's name
and the whole key in the file. A file that cannot be read whole is made anew.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import json
import pathlib

from absl import logging
import numpy as np

from deeprank_jax import files

Features = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Key:
    """All that decides the features of a split.

    Attributes:
      name: of the descriptor; letters, digits and `_`.
      version: Version of the descriptor.
      records: `Records.fingerprint` of the split.
      image_size: of the images, in pixels.
      fitted_on: `Records.fingerprint` of what a learned descriptor was fitted to.
      options: all others, as sorted JSON, see `create_key`.
    """

    name: str
    version: int
    records: str
    image_size: int
    fitted_on: str = ""
    options: str = "{}"

    @property
    def text(self) -> str:
        """Returns the key in one line, the same for the same."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def create_key(
    name: str,
    version: int,
    records: str,
    image_size: int,
    *,
    fitted_on: str = "",
    **options: object,
) -> Key:
    """Returns the key of features that were made with these options.

    Args:
      name: of the descriptor.
      version: of the descriptor.
      records: fingerprint of the split.
      image_size: of the images, in pixels.
      fitted_on: fingerprint of the split that a learned descriptor was fitted to.
      **options: e.g. `seed` and `fit`, numbers and text.

    Raises:
      ValueError: the name is not one of a file, or an option is neither number nor
        text.
    """
    if not name.isidentifier():
        raise ValueError(f"A descriptor's name is letters, digits and _; got {name!r}.")
    try:
        text = json.dumps(options, sort_keys=True)
    except TypeError as error:
        raise ValueError(
            f"Options of {name} must be numbers, text or lists of them ({error})."
        ) from error
    return Key(name, version, records, image_size, fitted_on, text)


def load_or_compute(
    folder: pathlib.Path | None, key: Key, compute: Callable[[], Features]
) -> Features:
    """Returns the features that the folder has, or computes and keeps them.

    Args:
      folder: of the files, made if it is missing; None keeps nothing.
      key: all that decides the features.
      compute: returns features `[N, D]` and which records are ok, `[N]` bool.

    Returns:
      As `compute` does. Of a file that is damaged a warning tells, as of one that
      cannot be written.
    """
    if folder is None:
        return compute()
    digest = hashlib.sha256(key.text.encode()).hexdigest()[:16]
    path = folder / f"features-{key.name}-{digest}.npz"
    if path.exists():
        found = _load(path, key)
        if found is not None:
            return found
    features, ok = compute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            np.savez(file, key=np.array(key.text), features=features, ok=ok)
    except OSError as error:
        logging.warning(
            "%s: features cannot be kept (%s), and are computed anew next time.",
            path,
            error.strerror or error,
        )
    return features, ok


def _load(path: pathlib.Path, key: Key) -> Features | None:
    """Returns the file's features, None with a warning if they are not the key's."""
    try:
        # The archive holds a checksum of each array, which reading it compares.
        with path.open("rb") as file, np.lib.npyio.NpzFile(file) as archive:
            text, features, ok = (archive[name] for name in ("key", "features", "ok"))
        if str(text) != key.text:
            raise ValueError("it is of other features")
        if features.ndim != 2 or ok.dtype != bool or ok.shape != features.shape[:1]:
            raise ValueError(f"shapes {features.shape} and {ok.shape}")
    # Archives fail in many ways, with MemoryError where a shape is damaged.
    except Exception as error:
        logging.warning(
            "%s: not what was written there (%s); computed anew.", path, error
        )
        return None
    return features, ok
