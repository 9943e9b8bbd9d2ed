"""Damaged evaluation triplets."""

import pathlib

from deeprank_jax.data import create_records
from deeprank_jax.evaluation import split
from deeprank_jax.relevance import attach
from deeprank_jax.training.experiment import create_run_relevance
from tools.faults.samples import Samples
from tools.faults.stored import Stored, digest


class EvaluationTriplets(Stored):
    """Evaluation triplets of a run's test split."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Draws the triplets."""
        self._config = samples.config()
        self._relevance = create_run_relevance(self._config)
        self._records = attach(self._relevance, create_records(self._config.data))
        self.read(folder)

    def read(self, folder: pathlib.Path) -> object:
        """Returns the triplets."""
        triplets = split.evaluation_triplets(
            self._config, self._records["test"], self._relevance, folder, "test"
        )
        assert triplets is not None
        return digest(triplets)
