"""Triplets from whole categories, for evaluation and for small sets of records."""

from typing import TypedDict, Unpack

import numpy as np

from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling.reservoir.candidates import Candidates
from deeprank_jax.sampling.reservoir.sampler import TripletSampler


class LawOptions(TypedDict, total=False):
    """Options of a sampler that decide the law of its draws; see `TripletSampler`."""

    mode: str
    positive_cap: float
    min_relevance_gap: float
    out_of_class: float
    min_positive_relevance: float


def create_whole_sampler(
    candidates: Candidates,
    relevance: Relevance,
    *,
    seed: int,
    **law: Unpack[LawOptions],
) -> TripletSampler:
    """Creates a sampler whose buffers hold whole categories from the first draw on.

    Args:
      candidates: Records to draw from.
      relevance: Relevance of two records by their attributes.
      seed: Seed of all draws, at least 0.
      **law: Options of the law; see `TripletSampler`.

    Raises:
      ValueError: As in `TripletSampler`.
    """
    size = len(candidates)
    return TripletSampler(
        candidates,
        relevance,
        seed=seed,
        capacity=max(2, size),
        warmup_records=size,
        **law,
    )


def sample_evaluation_triplets(
    candidates: Candidates,
    relevance: Relevance,
    num: int,
    *,
    seed: int,
    **law: Unpack[LawOptions],
) -> np.ndarray:
    """Draws triplets for evaluation from whole categories.

    Args:
      candidates: Records to draw from.
      relevance: Relevance of two records by their attributes.
      num: Number of triplets, at least 1; one may occur twice.
      seed: Seed of the draws, at least 0.
      **law: Options of the law; see `TripletSampler`.

    Returns:
      `[num, 3]` int64, indices of anchors, positives and negatives.

    Raises:
      NoTripletError: No triplet was found.
      ValueError: As in `TripletSampler`.
    """
    sampler = create_whole_sampler(candidates, relevance, seed=seed, **law)
    return sampler.sample(0, num).indices
