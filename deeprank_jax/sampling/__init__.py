"""Which three records make a triplet, and when: buffers, draws and their stream.

`(seed, step)` decides every triplet. No generator, order or queue is stored, so that
a run that was stopped goes on as if it had not been.
"""

from deeprank_jax.sampling.draws import NoTripletError
from deeprank_jax.sampling.level_shares import level_shares
from deeprank_jax.sampling.sampler import (
    Triplets,
    TripletSampler,
    sample_evaluation_triplets,
)
from deeprank_jax.sampling.stream import TripletBatch, TripletStream

__all__ = [
    "NoTripletError",
    "TripletBatch",
    "TripletSampler",
    "TripletStream",
    "Triplets",
    "level_shares",
    "sample_evaluation_triplets",
]
