"""OASIS as a similarity by name."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import ClassVar

import numpy as np

from deeprank_jax.baselines.oasis import Oasis, train_oasis
from deeprank_jax.errors import DataError
from deeprank_jax.progress import Bar
from deeprank_jax.similarities.base import (
    Metrics,
    check_embeddings,
    check_pairs,
    check_scores,
    unit_rows,
)
from deeprank_jax.similarities.pairs import LabelledPairs


@dataclasses.dataclass(kw_only=True, eq=False)
class Bilinear:
    r"""Bilinear similarity, learned by OASIS from triplets.

    .. math::
      s(a, b) = a^T W b

    for unit vectors a and b. A triplet is an image, another one of its class, and one
    of another class; `baselines.oasis.train_oasis` has the algorithm.

    References:
      Chechik et al., Large Scale Online Learning of Image Similarity Through Ranking,
      2010, https://www.jmlr.org/papers/v11/chechik10a.html.

    Attributes:
      steps: Number of batches of triplets.
      batch_size: Number of triplets of a batch.
      aggressiveness: Maximal step length C of OASIS.
      symmetric: True to keep W symmetric.
    """

    is_distance: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    steps: int = 300
    batch_size: int = 1000
    aggressiveness: float = 0.1
    symmetric: bool = False

    def __post_init__(self):
        """Checks the options.

        Raises:
          ValueError: One is out of range; the message begins with its name.
        """
        self._oasis: Oasis | None = None
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        if not (self.aggressiveness > 0 and np.isfinite(self.aggressiveness)):
            raise ValueError(
                f"aggressiveness must be above 0, got {self.aggressiveness}."
            )

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the score of each pair, `[N]` float64; see `Similarity`."""
        oasis = self._trained()
        a, b = check_pairs(a, b, len(oasis.weights))
        return check_scores(oasis.similarity(unit_rows(a), unit_rows(b)))

    def stages(
        self, embeddings: np.ndarray, labels: np.ndarray, *, seed: int = 0
    ) -> Iterator[Metrics]:
        """Trains, and yields the share of triplets with a loss in the last batches."""
        rows = unit_rows(check_embeddings("the training set", embeddings))
        pairs = LabelledPairs(labels, len(rows))
        rng = np.random.default_rng([seed, 2])

        def draw() -> Iterator[np.ndarray]:
            for _ in range(self.steps):
                yield pairs.draw_triplets(rng, self.batch_size)

        self._oasis = train_oasis(
            rows,
            draw(),
            aggressiveness=self.aggressiveness,
            symmetric=self.symmetric,
            progress=lambda batches: Bar(
                batches, total=self.steps, desc=self.describe(), unit=" batch"
            ),
        )
        last = self._oasis.loss_share[-max(1, self.steps // 10) :]
        yield {"loss_share": float(last.mean())}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns W and the counts of the training."""
        oasis = self._trained()
        return {
            "weights": oasis.weights,
            "loss_share": oasis.loss_share,
            "counts": np.array([oasis.num_triplets, oasis.num_updates]),
        }

    def restore(self, arrays: Mapping[str, np.ndarray], dim: int) -> None:
        """Sets W; see `LearnedSimilarity`."""
        if arrays.keys() != {"weights", "loss_share", "counts"}:
            raise ValueError(f"it holds {sorted(arrays)}, not the arrays of OASIS")
        if arrays["weights"].shape != (dim, dim) or arrays["counts"].shape != (2,):
            raise ValueError(
                f"weights is {list(arrays['weights'].shape)}, not of {dim}"
            )
        num_triplets, num_updates = arrays["counts"].tolist()
        self._oasis = Oasis(
            weights=arrays["weights"],
            loss_share=arrays["loss_share"],
            num_triplets=num_triplets,
            num_updates=num_updates,
            aggressiveness=self.aggressiveness,
        )

    def describe(self) -> str:
        """Returns the name."""
        return "bilinear, OASIS"

    def _trained(self) -> Oasis:
        """Returns the learned similarity.

        Raises:
          DataError: It is not trained yet.
        """
        if self._oasis is None:
            raise DataError(
                f"{self.describe()} has not been trained: train it, or load it from a "
                "file."
            )
        return self._oasis
