"""Relevance by the paper's golden feature, as `deeprank_jax/cli/golden_feature.py` writes it."""

from collections.abc import Sequence
from typing import Any

from absl import logging
import numpy as np

from deeprank_jax.relevance import vectors
from deeprank_jax.relevance.embedding import Embedding


class Golden(Embedding):
    """`exp(-D / scale)` of golden vectors; both are the file's.

    `D` is the weighted sum of the distances of many features, its weights learned from
    triplets that people rated.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661. The kernel is ours.
    """

    def __init__(self, file: str):
        """Reads the scale; the vectors are read by `attributes`.

        Args:
          file: written by `deeprank_jax/cli/golden_feature.py`; it holds the vectors of all
            records of all splits.

        Raises:
          ValueError: the file cannot be read, or holds other vectors.
        """
        metadata = vectors.read_vectors(file).metadata
        scale = metadata.get("scale")
        if not isinstance(scale, int | float) or "weights" not in metadata:
            raise ValueError(
                f"{file}: holds no golden feature but other vectors; write one by "
                "`deeprank golden-feature`, or use these by "
                "config.relevance.name='embedding'."
            )
        super().__init__(file, "exponential", scale)
        self.weights: dict[str, float] = metadata["weights"]
        self._fingerprints: dict[str, str] = metadata.get("records", {})

    def attributes(self, splits: Sequence[Any]) -> list[np.ndarray]:
        """Returns the golden vectors, `[N, D]` float32 for each split.

        Warns if the records are known by the same names but had other labels, or lay
        in other splits, when the file was written.

        Raises:
          ValueError: a record has no vector.
        """
        found = super().attributes(splits)
        for records in splits:
            made_for = self._fingerprints.get(vectors.split_name(records))
            if made_for not in (None, records.fingerprint):
                logging.warning(
                    "%s was made for other records or labels of %s (%s, now %s); if "
                    "the names stand for other images now, make it again.",
                    self.file,
                    records.name,
                    made_for,
                    records.fingerprint,
                )
        return found
