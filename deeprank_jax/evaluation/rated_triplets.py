"""Triplet metrics on triplets that people rated."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from deeprank_jax.data import rated_triplets
from deeprank_jax.evaluation.scores import NothingToMeasureError
from deeprank_jax.evaluation.triplets import Triplets


class RatedTriplets(Triplets):
    """Triplet metrics on the triplets of a file of ratings.

    Attributes:
      ratings: Triplets of the file whose images are all in the split.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        name: meaning.replace("triplets", "rated triplets")
        for name, meaning in Triplets.METRICS.items()
    }
    prefix = "rated"

    def __init__(
        self,
        labels: np.ndarray,
        split: str,
        read_ratings: Callable[[str], Mapping[str, rated_triplets.RatedTriplets]],
        *,
        category_level: int | None,
        file: str,
        k: int = 30,
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` int, labels from coarse to fine.
          split: Name of the split.
          read_ratings: Function from the file to the ratings of each split.
          category_level: Level of the labels that is the category: an anchor's
            candidates are the other records of its category.
          file: Path of a file of rated triplets; `{split}` in it stands for the split.
          k: K of score-at-top-K, at least 1.

        Raises:
          NothingToMeasureError: No triplet of the file has all three images in the
            split.
          DataError: The file cannot be used.
          ValueError: An option is out of range.
        """
        if not file:
            raise ValueError("file must be the path of a file of rated triplets.")
        self.ratings = read_ratings(file)[split]
        if not len(self.ratings.indices):
            raise NothingToMeasureError(
                f"{file}: no triplet has all three images in {split}."
            )
        super().__init__(
            labels, self.ratings.indices, category_level=category_level, k=k
        )

    def facts(self) -> dict[str, str]:
        """Returns the number of usable triplets, for the report."""
        return {"Rated triplets": self.ratings.describe()}
