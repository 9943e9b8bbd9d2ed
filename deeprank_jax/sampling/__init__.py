"""Samplers of triplets: buffers, draws and the stream of batches.

`(seed, step)` decides every triplet. No generator, order or queue is stored, so that a
resumed run continues as if it had never stopped.
"""

from deeprank_jax.sampling.level_shares import level_shares
from deeprank_jax.sampling.reservoir.candidates import (
    Candidates,
    categories,
    count_candidates,
    create_candidates,
)
from deeprank_jax.sampling.reservoir.draws import NoTripletError
from deeprank_jax.sampling.reservoir.law import MODES
from deeprank_jax.sampling.reservoir.sampler import STATE_VERSION, TripletSampler
from deeprank_jax.sampling.reservoir.whole_sampler import (
    create_whole_sampler,
    sample_evaluation_triplets,
)
from deeprank_jax.sampling.stream import Batch, BatchStream
from deeprank_jax.sampling.triplets import Triplets

__all__ = [
    "MODES",
    "STATE_VERSION",
    "Batch",
    "BatchStream",
    "Candidates",
    "NoTripletError",
    "TripletSampler",
    "Triplets",
    "categories",
    "count_candidates",
    "create_candidates",
    "create_whole_sampler",
    "level_shares",
    "sample_evaluation_triplets",
]
