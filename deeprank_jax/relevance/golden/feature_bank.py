"""How do many features become one short vector? Reduced, put on one scale, joined.

Convention: the distance of a feature is the squared Euclidean distance of its rows, 1
on the average of two training records; so a weight says how much a feature matters.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    from sklearn import decomposition

_NUM_PAIRS = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureBank:
    """The features of all records.

    Attributes:
      values: by feature `[N, D]` float32, reduced and scaled.
      explained: by feature the share of the variance that the reduction keeps.
      where: `[N]` bool, the records that could be read.
    """

    values: dict[str, np.ndarray]
    explained: dict[str, float]
    where: np.ndarray

    def gaps(self, triplets: np.ndarray) -> np.ndarray:
        """Returns `[T, F]` float64: how much further each negative is, by feature.

        Args:
          triplets: `[T, 3]` ints, rows of the features: anchor, positive, negative.
        """
        columns = []
        for values in self.values.values():
            near, far = pair_distances(values, triplets)
            columns.append(far - near)
        return np.stack(columns, axis=1)

    def join(self, weights: np.ndarray) -> np.ndarray:
        """Returns `[N, D]` float32 whose squared distance is the weighted sum of all.

        Args:
          weights: `[F]` floats, at least 0; a feature of weight 0 is left out.
        """
        return np.concatenate(
            [
                values * np.float32(np.sqrt(weight))
                for values, weight in zip(self.values.values(), weights, strict=True)
                if weight > 0
            ],
            axis=1,
        )


def create_bank(
    features: Mapping[str, np.ndarray],
    fitted: np.ndarray,
    where: np.ndarray,
    *,
    max_dims: int = 64,
    seed: int = 0,
) -> FeatureBank:
    """Creates the bank from the features as they were computed.

    Each feature is reduced by principal components, without whitening, and scaled so
    that two different training records are 1 apart on the average of 20,000 pairs.

    Args:
      features: by name `[N, D]` floats; all records of all splits.
      fitted: `[M]` ints, the training records; means, components and scales are
        theirs.
      where: `[N]` bool, the records that could be read; the others are put into the
        middle of the training records.
      max_dims: components kept of a feature.
      seed: of the pairs, and of the components of a long feature.

    Raises:
      ValueError: there are less than two training records, or a feature is the same
        for all of them.
    """
    fitted = np.asarray(fitted)
    if len(fitted) < 2:
        raise ValueError(
            f"There are {len(fitted)} training records that could be read; features "
            "need at least 2."
        )
    rng = np.random.default_rng(seed)
    first = rng.integers(len(fitted), size=_NUM_PAIRS)
    second = (first + rng.integers(1, len(fitted), _NUM_PAIRS)) % len(fitted)
    pairs = fitted[np.stack([first, second], axis=1)]
    values, explained = {}, {}
    for name, x in features.items():
        if not np.ptp(x[fitted], axis=0).any():
            raise ValueError(
                f"The feature {name} is the same for all {len(fitted):,} training "
                "records; leave it out."
            )
        reduced, explained[name] = _reduce(x, fitted, max_dims, seed)
        # The components' origin is the training records' mean.
        reduced[~where] = 0.0
        mean = pair_distances(reduced, pairs)[0].mean()
        values[name] = reduced / np.float32(np.sqrt(mean))
    return FeatureBank(values=values, explained=explained, where=where)


def pair_distances(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns squared distances from the first of each row to the others.

    Args:
      values: `[N, D]` floats.
      rows: `[T, 1 + K]` ints, rows of `values`.

    Returns:
      `[K, T]` float64.
    """
    first = values[rows[:, 0]]
    return np.stack(
        [
            np.square(first - values[other]).sum(axis=1, dtype=np.float64)
            for other in rows[:, 1:].T
        ]
    )


def _reduce(
    x: np.ndarray, fitted: np.ndarray, max_dims: int, seed: int
) -> tuple[np.ndarray, float]:
    """Returns `[N, <= max_dims]` float32 and the share of variance they keep."""
    dims = min(max_dims, x.shape[1], len(fitted))
    pca: Any = decomposition.PCA(dims, random_state=seed)
    pca.fit(x[fitted])
    reduced = pca.transform(x).astype(np.float32)
    return reduced, float(pca.explained_variance_ratio_.sum())
