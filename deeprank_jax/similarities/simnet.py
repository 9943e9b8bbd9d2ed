"""SimNet, a network that scores two embeddings side by side."""

import dataclasses

from flax import nnx
import numpy as np

from deeprank_jax.similarities.networks import PairPerceptron
from deeprank_jax.similarities.staged import StagedSimilarity


@dataclasses.dataclass(kw_only=True, eq=False)
class SimNet(StagedSimilarity):
    r"""Score of a perceptron with two hidden layers over both embeddings.

    .. math::
      s(a, b) = \tfrac12 \left(f([a; b]) + f([b; a])\right), \quad
      f(x) = w^T \max(0, W_2 \max(0, W_1 x + b_1) + b_2) + b_3

    for unit vectors a and b. It is no metric, and without the mean of both orders not
    even symmetric.

    References:
      Garcia and Vogiatzis, Learning Non-Metric Visual Similarity for Image Retrieval,
      2019, https://arxiv.org/abs/1709.01353; the mean of both orders is ours.

    Attributes:
      width: Number of units of each hidden layer.
      symmetric: True for the mean of both orders; False for the score of (a, b) alone.
    """

    width: int = 4096
    symmetric: bool = True

    def __post_init__(self):
        """Checks the options; see `StagedSimilarity`."""
        super().__post_init__()
        self._check_range("width", 1)

    def create_network(self, dim: int, rngs: nnx.Rngs) -> nnx.Module:
        """Returns the perceptron; see `StagedSimilarity`."""
        return PairPerceptron(dim, self.width, weight_std=self.weight_std, rngs=rngs)

    def _score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        scores = super()._score(a, b)
        return (scores + super()._score(b, a)) / 2 if self.symmetric else scores

    def describe(self) -> str:
        """Returns the name and the width."""
        return f"SimNet of width {self.width}"
