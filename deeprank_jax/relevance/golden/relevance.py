"""Relevance by the paper's golden feature, a file of `deeprank golden-feature`."""

from collections.abc import Sequence

from absl import logging
import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.relevance import vectors
from deeprank_jax.relevance.embedding import Embedding


class Golden(Embedding):
    """`exp(-D / scale)` of golden vectors; scale and vectors are stored in a file.

    `D` is the weighted sum of the distances of many features. The weights are learned
    from triplets that people rated.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661. The kernel is ours.
    """

    def __init__(self, file: str):
        """Reads the scale; the vectors are read by `attributes`.

        Args:
          file: Path of a .parquet that `deeprank golden-feature` wrote, with the
            vectors of all records of all splits.

        Raises:
          DataError: The file cannot be read, or holds other vectors.
        """
        metadata = vectors.read_vectors(file).metadata
        scale, weights = metadata.get("scale"), metadata.get("weights")
        if not isinstance(scale, int | float) or not isinstance(weights, dict):
            raise DataError(
                f"{file}: holds no golden feature but other vectors; write one by "
                "`deeprank golden-feature`, or use these by "
                "config.relevance.name='embedding'."
            )
        super().__init__(file, "exponential", scale)
        self.weights: dict[str, float] = weights
        fingerprints = metadata.get("records")
        self._fingerprints = fingerprints if isinstance(fingerprints, dict) else {}

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns the golden vectors, `[N, D]` float32 for each split.

        Warns if the labels or splits of the records were others when the file was
        written.

        Raises:
          DataError: A record has no vector.
        """
        for records in splits:
            fingerprint = self._fingerprints.get(vectors.split_name(records))
            if fingerprint not in (None, records.fingerprint):
                logging.warning(
                    "%s was written for other records or labels of %s (%s, now %s); if "
                    "the names are now those of other images, write it again.",
                    self.file,
                    records.name,
                    fingerprint,
                    records.fingerprint,
                )
        return super().attributes(splits)
