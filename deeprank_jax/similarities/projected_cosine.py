"""The cosine after a learned projection, the baseline that SimNet has to beat."""

import dataclasses

from flax import nnx

from deeprank_jax.similarities.networks import Projection
from deeprank_jax.similarities.staged import StagedSimilarity


@dataclasses.dataclass(kw_only=True, eq=False)
class ProjectedCosine(StagedSimilarity):
    r"""Cosine of both embeddings after two fully connected layers.

    .. math::
      s(a, b) = \cos(g(a), g(b)), \quad g(x) = W_2 \max(0, W_1 x + b_1) + b_2

    for unit vectors a and b. It is trained on the same pairs as SimNet, and its
    distance is the cosine distance of other embeddings, so that a nearest neighbour
    index can still search by it.

    References:
      Garcia and Vogiatzis, Learning Non-Metric Visual Similarity for Image Retrieval,
      2019, https://arxiv.org/abs/1709.01353 (the cosine after trained layers).

    Attributes:
      width: Number of units of each layer.
    """

    width: int = 512

    def __post_init__(self):
        """Checks the options; see `StagedSimilarity`."""
        super().__post_init__()
        self._check_range("width", 1)

    def create_network(self, dim: int, rngs: nnx.Rngs) -> nnx.Module:
        """Returns the layers; see `StagedSimilarity`."""
        return Projection(dim, self.width, weight_std=self.weight_std, rngs=rngs)

    def describe(self) -> str:
        """Returns the name and the width."""
        return f"projected cosine of width {self.width}"
