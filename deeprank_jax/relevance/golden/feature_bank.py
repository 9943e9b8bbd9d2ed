"""Visual features of all records, reduced and scaled to be joined into one vector.

Convention: the distance of a feature is the squared Euclidean distance of its rows, 1
on average between two training records, so that weights are comparable.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    from sklearn import decomposition

from deeprank_jax.errors import DataError

_NUM_PAIRS = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureBank:
    """The features of all records.

    Attributes:
      values: `[N, D]` float32, reduced and scaled values by feature.
      explained: Share of the variance that remains after the reduction, by feature.
      where: `[N]` bool, True for records whose image is readable.
    """

    values: dict[str, np.ndarray]
    explained: dict[str, float]
    where: np.ndarray

    def gaps(self, triplets: np.ndarray) -> np.ndarray:
        """Returns `[T, F]` float64: distance of the negative less that of the positive.

        Args:
          triplets: `[T, 3]` int, rows of anchor, positive and negative in the bank.
        """
        columns = []
        for values in self.values.values():
            near, far = pair_distances(values, triplets)
            columns.append(far - near)
        return np.stack(columns, axis=1)

    def join(self, weights: np.ndarray) -> np.ndarray:
        """Returns `[N, D]` float32 whose squared distance is the weighted sum.

        Args:
          weights: `[F]` float, weight of each feature, at least 0; 0 leaves it out.
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
    """Creates a bank from raw features.

    Each feature is reduced by principal components, without whitening, and scaled so
    that two different training records have distance 1 on average over 20,000 pairs.

    Args:
      features: `[N, D]` float, features of all records of all splits by name.
      fitted: `[M]` int, rows of the training records, from which means, components and
        scales are computed.
      where: `[N]` bool, True for records whose image is readable; the others get the
        mean of the training records.
      max_dims: Largest number of components per feature.
      seed: Seed of the pairs, and of the components of a long feature.

    Raises:
      DataError: There are less than two training records, or a feature is the same
        for all of them.
    """
    fitted = np.asarray(fitted)
    if len(fitted) < 2:
        raise DataError(
            f"Features need at least 2 training records with a readable image, got "
            f"{len(fitted)}; check the images of the training split."
        )
    rng = np.random.default_rng(seed)
    first = rng.integers(len(fitted), size=_NUM_PAIRS)
    second = (first + rng.integers(1, len(fitted), _NUM_PAIRS)) % len(fitted)
    pairs = fitted[np.stack([first, second], axis=1)]
    values, explained = {}, {}
    for name, x in features.items():
        if not np.ptp(x[fitted], axis=0).any():
            raise DataError(
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
      values: `[N, D]` float, one row per record.
      rows: `[T, 1 + K]` int, rows of `values`.

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
    """Returns `[N, <= max_dims]` float32 and the share of variance that remains."""
    dims = min(max_dims, x.shape[1], len(fitted))
    pca = decomposition.PCA(dims, random_state=seed)
    pca.fit(x[fitted])
    reduced = pca.transform(x).astype(np.float32)
    return reduced, float(pca.explained_variance_ratio_.sum())
