"""A weighted inner product, the simplest similarity that can be learned."""

import dataclasses

from flax import nnx

from deeprank_jax.similarities.networks import WeightedProduct
from deeprank_jax.similarities.staged import StagedSimilarity


@dataclasses.dataclass(kw_only=True, eq=False)
class Linear(StagedSimilarity):
    r"""Weights on the product of both embeddings, dimension by dimension.

    .. math::
      s(a, b) = \sum_d w_d \, a_d \, b_d

    for unit vectors a and b, with weights that start at 1, the cosine. It is the
    bilinear similarity with a diagonal matrix. A linear form of the two side by side,
    without the product, could not rank: the query would add the same to each score.

    References:
      Schultz and Joachims, Learning a Distance Metric from Relative Comparisons, 2003
      (the weights of a diagonal); trained by the stages of SimNet, see
      `StagedSimilarity`.
    """

    # The first stage has nothing to teach, as the cosine is where it starts.
    random_steps: int = 0

    def create_network(self, dim: int, rngs: nnx.Rngs) -> nnx.Module:
        """Returns the weights; see `StagedSimilarity`."""
        return WeightedProduct(dim)

    def describe(self) -> str:
        """Returns the name."""
        return "weighted product"
