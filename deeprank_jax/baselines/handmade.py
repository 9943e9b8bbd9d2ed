"""Which hand-made descriptors does every image have? Computed once and kept.

Convention: rows are the records of all splits in turn; what has to be fitted is fitted
to the split "train".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import pathlib
from typing import Any

import numpy as np

from deeprank_jax import descriptors
from deeprank_jax.baselines import cache
from deeprank_jax.baselines.systems import System
from deeprank_jax.data.records import Records

# Images described at a time; the progress bar moves as often.
_BATCH = 256

# Maps a split to its images `[N, S, S, 3]` uint8, and which could be read, `[N]`.
Load = Callable[[str], tuple[np.ndarray, np.ndarray]]
# Wraps batches in a progress bar with a description.
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


def describe_all(
    splits: Mapping[str, Records],
    load: Load,
    names: Sequence[str],
    *,
    image_size: int,
    fit: str,
    folder: pathlib.Path | None,
    workers: int = 1,
    seed: int = 0,
    progress: Progress = lambda batches, description: batches,
) -> dict[str, System]:
    """Describes every record.

    Args:
      splits: the records; "train" must be among them.
      load: reads a split's images; is called where something is not kept yet.
      names: Names in `descriptors.DESCRIPTORS`.
      image_size: S, of the images that are described.
      fit: how they became squares, which is what they are kept under.
      folder: where descriptors are kept; None for nowhere.
      workers: threads that share the images.
      seed: of what is fitted.
      progress: wraps the work on a split.

    Returns:
      A system for each name.

    Raises:
      ConfigError: There is no such descriptor.
      DataError: The images are too few or too small.
    """
    images = _Images(load)
    for name in names:
        descriptors.create_descriptor(name)
    trained = splits["train"].fingerprint
    found = {}
    for name in names:
        describe = _Describe(name, images, workers, seed, progress)
        options = dict(fit=fit, seed=seed if describe.learns else 0)
        if describe.learns:
            options["fitted_on"] = trained
        parts = []
        for split, records in splits.items():
            key = cache.create_key(
                name, describe.version, records.fingerprint, image_size, **options
            )
            compute = functools.partial(describe.of_split, split)
            parts.append(cache.load_or_compute(folder, key, compute))
        features, ok = map(np.concatenate, zip(*parts, strict=True))
        found[name] = System(embeddings=features, ok=ok)
    return found


class _Images:
    """The images of the splits, each read when it is first asked for."""

    def __init__(self, load: Load):
        self._load = load
        self._loaded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        if split not in self._loaded:
            self._loaded[split] = self._load(split)
        return self._loaded[split]


class _Describe:
    """A descriptor, fitted to training images when it is first needed."""

    def __init__(
        self, name: str, images: _Images, workers: int, seed: int, progress: Progress
    ):
        self._descriptor = descriptors.create_descriptor(name)
        self.learns = self._descriptor.is_learned
        self.version = self._descriptor.version
        self._name, self._images = name, images
        self._workers, self._seed, self._progress = workers, seed, progress

    def of_split(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns descriptors `[N, D]`, 0 for bad images, and which are ok, `[N]`."""
        images, ok = self._images.of(split)
        # At least one piece, from which the number of columns is known.
        starts = range(0, max(1, len(images)), _BATCH)
        rows = [
            descriptors.describe_in_threads(
                self._function, images[start : start + _BATCH], workers=self._workers
            )
            for start in self._progress(starts, f"{self._name}, {split}")
        ]
        features = np.concatenate(rows)
        features[~ok] = 0.0
        return features, ok

    @functools.cached_property
    def _function(self) -> descriptors.Describe:
        if not self.learns:
            return self._descriptor.fit(np.zeros((0, 1, 1, 3), np.uint8))
        images, ok = self._images.of("train")
        return self._descriptor.fit(images[ok], seed=self._seed, workers=self._workers)
