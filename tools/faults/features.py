"""Damaged files of features, vectors, triplets and a learned similarity."""

import pathlib

import numpy as np

from deeprank_jax.baselines import cache, oasis
from deeprank_jax.data.records import Records
from deeprank_jax.relevance import vectors
from deeprank_jax.relevance.same_class import SameClass
from deeprank_jax.sampling import triplet_file
from deeprank_jax.sampling.file_sampler import FileSampler, draw_for_every_record
from deeprank_jax.training.experiment import check_sampler
from tools.faults.samples import Samples
from tools.faults.stored import Stored, digest

_NUM, _DIM = 40, 8


class CachedFeatures(Stored):
    """Cached features of a baseline."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Computes and caches them."""
        self.read(folder)

    def read(self, folder: pathlib.Path) -> object:
        """Returns a digest of the features."""
        key = cache.create_key("hog", 1, "40-0123456789ab", 32, seed=3)
        return digest(*cache.load_or_compute(folder, key, lambda: (_rows(), _ok())))


class StoredVectors(Stored):
    """Vectors of a relevance, as `deeprank golden_feature` writes them."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Writes them."""
        ids = [f"r{i}" for i in range(_NUM)]
        vectors.write_vectors(folder / "golden.parquet", ids, _rows(), {"seed": 3})

    def read(self, folder: pathlib.Path) -> object:
        """Returns ids, vectors and metadata."""
        read = vectors.read_vectors(folder / "golden.parquet")
        return read.ids, digest(np.asarray(read.values)), dict(read.metadata)


class StoredOasis(Stored):
    """A learned similarity."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Writes one."""
        oasis.Oasis(
            weights=_rows()[:_DIM].astype(np.float64),
            loss_share=np.linspace(1, 0, 5),
            num_triplets=70,
            num_updates=9,
            aggressiveness=0.1,
        ).save(folder / "oasis.npz")

    def read(self, folder: pathlib.Path) -> object:
        """Returns a digest of its arrays, and its numbers."""
        read = oasis.load_oasis(folder / "oasis.npz")
        numbers = read.num_triplets, read.num_updates, read.aggressiveness
        return digest(read.weights, read.loss_share), numbers


class TripletFiles(Stored):
    """Triplets of `deeprank triplets`: as Parquet, and as CSV of a run that goes on.

    A CSV file may be written by hand; the run's sampler knows the one it began with.
    """

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Draws the triplets, and keeps the state of the run's sampler."""
        self._records = _records()
        self._state: dict[str, object] = {}
        for suffix in ("parquet", "csv"):
            triplets = draw_for_every_record(self._records, 2, 2, seed=0)
            path = folder / f"triplets.{suffix}"
            triplet_file.write_triplets(path, self._records, triplets)
        self._state = self._sampler(folder / "triplets.csv").state(3)

    def read(self, folder: pathlib.Path) -> object:
        """Returns digests of the triplets of some steps."""
        path = folder / "triplets.csv"
        check_sampler(self._state, self._sampler(path).state(3), path)
        samplers = [self._sampler(folder / "triplets.parquet"), self._sampler(path)]
        return [
            digest(*(sampler.sample(step, 8).indices for step in range(3, 8)))
            for sampler in samplers
        ]

    def _sampler(self, path: pathlib.Path) -> FileSampler:
        data = triplet_file.read_triplets(path, self._records)
        return FileSampler(
            data, self._records, SameClass(), seed=0, category_level=None
        )


def _rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((_NUM, _DIM)).astype(np.float32)


def _ok() -> np.ndarray:
    return np.arange(_NUM) % 9 > 0


def _records() -> Records:
    classes = np.arange(_NUM) % 8
    return Records(
        name="pool/train",
        labels=classes[:, None].astype(np.int32),
        level_names=("class",),
        label_names=(tuple(map(str, range(8))),),
        read=lambda index: b"",
        describe=lambda index: f"class {index % 8}/{index // 8}.png",
    )
