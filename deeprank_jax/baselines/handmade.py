"""Baselines of hand-made descriptors, computed once and cached.

Rows are the records of all splits in turn. Learned descriptors are fitted to the split
"train".
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

# Images described per step of the progress bar.
_BATCH = 256

# Function from a split to its images `[N, S, S, 3]` uint8 and `ok [N]` bool.
Load = Callable[[str], tuple[np.ndarray, np.ndarray]]
# Wrapper of batches in a progress bar with a description.
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
      splits: Records of each split, "train" among them.
      load: Reader of a split's images, called only if descriptors are not cached.
      names: Names in `descriptors.DESCRIPTORS`.
      image_size: Size S of the images.
      fit: Method by which images became squares, part of the cache's key.
      folder: Folder of the cache; None for none.
      workers: Number of threads that share the images.
      seed: Seed of learned descriptors.
      progress: Wrapper of the work on a split.

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
    systems = {}
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
        systems[name] = System(embeddings=features, ok=ok)
    return systems


class _Images:
    """The images of the splits, read at first use."""

    def __init__(self, load: Load):
        self._load = load
        self._loaded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        if split not in self._loaded:
            self._loaded[split] = self._load(split)
        return self._loaded[split]


class _Describe:
    """A descriptor, fitted to training images at first use."""

    def __init__(
        self, name: str, images: _Images, workers: int, seed: int, progress: Progress
    ):
        self._descriptor = descriptors.create_descriptor(name)
        self.learns = self._descriptor.is_learned
        self.version = self._descriptor.version
        self._name, self._images = name, images
        self._workers, self._seed, self._progress = workers, seed, progress

    def of_split(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns descriptors `[N, D]`, 0 for bad images, and `ok [N]` bool."""
        images, ok = self._images.of(split)
        # At least one piece, which has the number of columns.
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
