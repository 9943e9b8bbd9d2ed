"""Max-margin training of feature weights from rated triplets.

Convention: `gaps [T, F]` are, for each rated triplet and each feature, the distance
from anchor to negative less that from anchor to positive: above 0 where the feature
agrees with the person.
"""

from collections.abc import Sequence

import numpy as np
from scipy import optimize

from deeprank_jax.errors import DataError

# Candidates for lambda in lambda / 2 ||w||^2.
PENALTIES = tuple(10.0**exponent for exponent in range(-6, 2))


def learn_weights(gaps: np.ndarray, penalty: float) -> np.ndarray:
    """Returns weights that order the triplets with a margin of 1 as far as possible.

    They minimise `penalty / 2 ||w||^2 + mean(max(0, 1 - gaps @ w)^2)` over `w >= 0`.

    Args:
      gaps: `[T, F]` float, one row per triplet, at least one.
      penalty: Lambda, above 0.

    Returns:
      `[F]` float64, at least 0.

    Raises:
      DataError: No weight is above 0, since no feature agrees with the triplets.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661, specify only "max-margin"; the squared hinge and
      the bound at 0 are ours.
    """
    gaps = np.asarray(gaps, np.float64)

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        hinge = np.maximum(0.0, 1.0 - gaps @ weights)
        value = penalty / 2 * weights @ weights + np.mean(hinge**2)
        return value, penalty * weights - 2 * hinge @ gaps / len(gaps)

    result = optimize.minimize(
        objective,
        np.zeros(gaps.shape[1]),
        jac=True,
        method="L-BFGS-B",
        bounds=optimize.Bounds(0.0),
        options={"maxiter": 10_000, "ftol": 1e-12, "gtol": 1e-8},
    )
    # At w = 0 the slope of a feature is -2 times its mean gap.
    if not result.x.any():
        raise DataError(
            f"No weight is above 0: for none of the {gaps.shape[1]} features the "
            f"positive is nearer than the negative on average of {len(gaps):,} "
            "triplets. Check that positives and negatives are not swapped, or add "
            "features."
        )
    return result.x


def choose_penalty(
    gaps: np.ndarray,
    anchors: np.ndarray,
    *,
    rng: np.random.Generator,
    penalties: Sequence[float] = PENALTIES,
    num_folds: int = 5,
) -> float:
    """Returns the penalty whose weights have the least loss on held-out anchors.

    Args:
      gaps: `[T, F]` float, one row per triplet.
      anchors: `[T]` int, anchor of each triplet; its triplets are in one fold.
      rng: Generator that assigns anchors to folds.
      penalties: Candidates; the largest of equal ones is returned.
      num_folds: Number of folds, at most that of the anchors.

    Raises:
      DataError: There are less than two anchors.
    """
    _, anchor = np.unique(anchors, return_inverse=True)
    num_anchors = int(anchor.max(initial=-1)) + 1
    if num_anchors < 2:
        raise DataError(
            f"The training triplets have {num_anchors} anchors; cross-validation "
            "needs at least 2, and a few hundred for a useful result."
        )
    num_folds = min(num_folds, num_anchors)
    fold = (rng.permutation(num_anchors) % num_folds)[anchor]
    best, least = penalties[0], np.inf
    for penalty in sorted(penalties, reverse=True):
        loss = 0.0
        for held_out in range(num_folds):
            where = fold == held_out
            try:
                weights = learn_weights(gaps[~where], penalty)
            except DataError:
                # One fold may have no weight above 0 although all triplets have.
                weights = np.zeros(gaps.shape[1])
            loss += np.sum(np.maximum(0.0, 1.0 - gaps[where] @ weights) ** 2)
        if loss < least:
            best, least = penalty, loss
    return float(best)


def bootstrap_weights(
    anchors: np.ndarray, rng: np.random.Generator, num: int = 1000
) -> np.ndarray:
    """Returns the multiplicity of each triplet in bootstrap samples of the anchors.

    Args:
      anchors: `[T]` int, anchor of each triplet; its triplets are sampled together.
      rng: Generator of the samples.
      num: Number of samples.

    Returns:
      `[num, T]` ints.
    """
    _, anchor = np.unique(anchors, return_inverse=True)
    size = int(anchor.max(initial=-1)) + 1
    return rng.multinomial(size, np.full(size, 1.0 / size), num)[:, anchor]


def agreement(gaps: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    """Returns the share of triplets whose positive is strictly nearer.

    Args:
      gaps: `[T]` float, gap of each triplet by one distance; a tie counts as wrong.
      samples: `[S, T]` int, result of `bootstrap_weights`.

    Returns:
      `agreement`, and `low` and `high`, its 95 % bootstrap interval.
    """
    right = np.asarray(gaps) > 0
    return _with_interval(float(np.mean(right)), samples, right)


def difference(
    gaps: np.ndarray, others: np.ndarray, samples: np.ndarray
) -> dict[str, float]:
    """Returns the agreement of `gaps` less that of `others`, on the same triplets.

    Args:
      gaps: `[T]` float, gap of each triplet by one distance.
      others: `[T]` float, gap of each triplet by another.
      samples: `[S, T]` int, result of `bootstrap_weights`.

    Returns:
      `agreement`, and `low` and `high`, the 95 % bootstrap interval of the difference.
    """
    better = (np.asarray(gaps) > 0) * 1.0 - (np.asarray(others) > 0)
    return _with_interval(float(np.mean(better)), samples, better)


def _with_interval(
    value: float, samples: np.ndarray, of_triplet: np.ndarray
) -> dict[str, float]:
    shares = samples @ of_triplet / samples.sum(axis=1)
    low, high = np.percentile(shares, (2.5, 97.5))
    return {"agreement": value, "low": float(low), "high": float(high)}
