"""Triplet metrics on triplets that are sampled once and stored with the run."""

from collections.abc import Callable
import os
import pathlib

from absl import logging
import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.evaluation.scores import NothingToMeasureError
from deeprank_jax.evaluation.stored_triplets import (
    DamagedTripletsError,
    load_triplets,
    save_triplets,
)
from deeprank_jax.evaluation.triplets import Triplets
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import (
    NoTripletError,
    create_candidates,
    sample_evaluation_triplets,
)


class SampledTriplets(Triplets):
    """Triplet metrics on triplets sampled by relevance.

    Attributes:
      triplets: `[T, 3]` int, indices of records, in the order of the file.
    """

    def __init__(
        self,
        records: Records,
        sampling_relevance: Relevance,
        triplets_path: pathlib.Path,
        *,
        relevance_options: str,
        category_level: int | None,
        positive_cap: float,
        min_relevance_gap: float,
        seed: int,
        cache: str | os.PathLike[str] | None = None,
        num: int = 20_000,
        k: int = 30,
        out_of_class: float = 0.2,
    ):
        """Creates the evaluator, and samples the triplets if they are not stored yet.

        Args:
          records: Records of the split.
          sampling_relevance: Relevance by which triplets are sampled.
          triplets_path: File that stores the triplets.
          relevance_options: Config of the relevance, as JSON in one line.
          category_level: Level of the labels that is the category, see `Triplets`.
          positive_cap: Cap of a positive's relevance, T_p.
          min_relevance_gap: Least difference of relevance of a triplet, T_r.
          seed: Seed of the sampling.
          cache: Folder that stores sums of relevances; None for none.
          num: Number of triplets to sample.
          k: K of score-at-top-K, at least 1.
          out_of_class: Share of negatives of other categories.
        """
        options = {
            "num": num,
            "seed": seed,
            "mode": "importance",
            "positive_cap": positive_cap,
            "min_relevance_gap": min_relevance_gap,
            "out_of_class": out_of_class,
        }
        candidates = create_candidates(
            records, sampling_relevance, category_level, cache=cache
        )
        text = _describe(
            **options,
            category_level=category_level,
            sum_of_totals=candidates.sum_of_totals,
            relevance=relevance_options,
        )
        self.triplets = _load_or_sample(
            triplets_path,
            records.fingerprint,
            text,
            lambda: sample_evaluation_triplets(
                candidates, sampling_relevance, **options
            ),
        )
        super().__init__(
            records.labels, self.triplets, category_level=category_level, k=k
        )


def _load_or_sample(
    path: pathlib.Path, fingerprint: str, options: str, sample: Callable[[], np.ndarray]
) -> np.ndarray:
    """Returns the triplets of a file, sampled and written if there is none.

    Those of a damaged file are sampled again, and are the same.
    """
    if path.exists():
        try:
            return load_triplets(path, fingerprint, options)
        except DamagedTripletsError:
            logging.warning("%s is damaged; its triplets are drawn again.", path)
    try:
        triplets = sample()
    except NoTripletError as error:
        raise NothingToMeasureError(str(error)) from error
    save_triplets(path, triplets, fingerprint, options)
    return triplets


def _describe(**options: object) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items())
