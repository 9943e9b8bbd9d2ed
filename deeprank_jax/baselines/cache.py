"""Cache of slow features on disk, checked against their key when read.

The key holds all that determines the features. Its hash is in the file's name and the
whole key in the file. A damaged file is computed again.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import json
import pathlib

from absl import logging
import numpy as np

from deeprank_jax import files
from deeprank_jax.files.arrays import read_npz

Features = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Key:
    """Everything that determines the features of a split.

    Attributes:
      name: Name of the descriptor; letters, digits and `_`.
      version: Version of the descriptor.
      records: `Records.fingerprint` of the split.
      image_size: Size of the images in pixels.
      fitted_on: `Records.fingerprint` of the records a learned descriptor is fitted to.
      options: All other options, as sorted JSON, see `create_key`.
    """

    name: str
    version: int
    records: str
    image_size: int
    fitted_on: str = ""
    options: str = "{}"

    @property
    def text(self) -> str:
        """Returns the key in one line; equal keys give equal text."""
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
    """Returns the key of features that are computed with these options.

    Args:
      name: Name of the descriptor.
      version: Version of the descriptor.
      records: Fingerprint of the split.
      image_size: Size of the images in pixels.
      fitted_on: Fingerprint of the split that a learned descriptor is fitted to.
      **options: Further options, e.g. `seed` and `fit`, as numbers or text.

    Raises:
      ValueError: The name cannot be part of a file's name, or an option is neither
        number nor text.
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
    """Returns features from the cache, or computes and caches them.

    Args:
      folder: Folder of the cache, created if it is missing; None caches nothing.
      key: Everything that determines the features.
      compute: Function that returns features `[N, D]` and `ok [N]` bool.

    Returns:
      Features and `ok`. A file that is damaged or cannot be written causes a warning.
    """
    if folder is None:
        return compute()
    digest = hashlib.sha256(key.text.encode()).hexdigest()[:16]
    path = folder / f"features-{key.name}-{digest}.npz"
    if path.exists():
        features = _load(path, key)
        if features is not None:
            return features
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
    """Returns the file's features; None, with a warning, if the file is unusable."""
    try:
        # Reading compares the checksum of each array.
        arrays = read_npz(path)
        text, features, ok = (arrays[name] for name in ("key", "features", "ok"))
        if str(text) != key.text:
            raise ValueError("it has another key")
        if features.ndim != 2 or ok.dtype != bool or ok.shape != features.shape[:1]:
            raise ValueError(f"shapes {features.shape} and {ok.shape}")
    # Damaged archives fail in many ways, even with a MemoryError.
    except Exception as error:
        logging.warning(
            "%s: not what was written there (%s); computed anew.", path, error
        )
        return None
    return features, ok
