"""Damaged cache of total relevances."""

import pathlib

import numpy as np

from deeprank_jax import relevance
from tools.faults.samples import Samples
from tools.faults.stored import Stored, digest

_KIND = relevance.Embedding("not read.npy")
_NUM, _DIM = 200, 8


class Totals(Stored):
    """Total relevances of vectors; all pairs are compared if they cannot be read."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Compares all pairs, and caches the sums."""
        self.read(folder)

    def read(self, folder: pathlib.Path) -> object:
        """Returns the totals."""
        rng = np.random.default_rng(0)
        vectors = (0.5 * rng.standard_normal((_NUM, _DIM))).astype(np.float32)
        totals = relevance.total_relevance(
            _KIND, vectors, np.arange(_NUM) % 3, cache=folder, progress=False
        )
        return digest(totals)
