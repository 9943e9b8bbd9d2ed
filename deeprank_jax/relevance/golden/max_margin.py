"""Which weights of features agree best with people? Learned by max-margin.

Convention: `gaps [T, F]` are, for each rated triplet and each feature, the distance
from anchor to negative less that from anchor to positive: above 0 where the feature
agrees with the person.
"""

from collections.abc import Sequence

import numpy as np
from scipy import optimize

# lambda / 2 ||w||^2 is chosen among these.
PENALTIES = tuple(10.0**exponent for exponent in range(-6, 2))


def learn_weights(gaps: np.ndarray, penalty: float) -> np.ndarray:
    """Returns the weights that order the triplets by a margin of 1, where they can.

    They minimise `penalty / 2 ||w||^2 + mean(max(0, 1 - gaps @ w)^2)` over `w >= 0`.

    Args:
      gaps: `[T, F]` floats, at least one triplet.
      penalty: lambda, above 0.

    Returns:
      `[F]` float64, at least 0.

    Raises:
      ValueError: no weight is above 0, since no feature agrees with the triplets.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661, say only "max-margin"; the squared hinge and the
      bound at 0 are ours.
    """
    gaps = np.asarray(gaps, np.float64)

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        hinge = np.maximum(0.0, 1.0 - gaps @ weights)
        value = penalty / 2 * weights @ weights + np.mean(hinge**2)
        return value, penalty * weights - 2 * hinge @ gaps / len(gaps)

    found = optimize.minimize(
        objective,
        np.zeros(gaps.shape[1]),
        jac=True,
        method="L-BFGS-B",
        bounds=optimize.Bounds(0.0),
        options={"maxiter": 10_000, "ftol": 1e-12, "gtol": 1e-8},
    )
    # At w = 0 the slope of a feature is -2 times its mean gap.
    if not found.x.any():
        raise ValueError(
            f"No weight is above 0: none of the {gaps.shape[1]} features is, on the "
            f"average of {len(gaps):,} triplets, nearer between anchor and positive "
            "than between anchor and negative. Look whether positives and negatives "
            "are swapped, or add features."
        )
    return found.x


def choose_penalty(
    gaps: np.ndarray,
    anchors: np.ndarray,
    *,
    rng: np.random.Generator,
    penalties: Sequence[float] = PENALTIES,
    num_folds: int = 5,
) -> float:
    """Returns the penalty whose weights have the least loss on unseen anchors.

    Args:
      gaps: `[T, F]` floats.
      anchors: `[T]` ints; the triplets of an anchor are in one fold.
      rng: deals anchors to folds.
      penalties: to choose from; of equals the largest is taken.
      num_folds: of the cross-validation, fewer if there are fewer anchors.

    Raises:
      ValueError: there are less than two anchors.
    """
    _, anchor = np.unique(anchors, return_inverse=True)
    num_anchors = int(anchor.max(initial=-1)) + 1
    if num_anchors < 2:
        raise ValueError(
            f"The triplets to learn from have {num_anchors} anchors; cross-validation "
            "needs at least 2, and a few hundred to be of use."
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
            except ValueError:
                # A fold may be unlucky; all triplets together decide.
                weights = np.zeros(gaps.shape[1])
            loss += np.sum(np.maximum(0.0, 1.0 - gaps[where] @ weights) ** 2)
        if loss < least:
            best, least = penalty, loss
    return float(best)


def bootstrap_weights(
    anchors: np.ndarray, rng: np.random.Generator, num: int = 1000
) -> np.ndarray:
    """Returns how often each triplet is in each bootstrap sample of the anchors.

    Args:
      anchors: `[T]` ints; the triplets of an anchor are drawn together.
      rng: draws the samples.
      num: samples.

    Returns:
      `[num, T]` ints.
    """
    _, anchor = np.unique(anchors, return_inverse=True)
    size = int(anchor.max(initial=-1)) + 1
    return rng.multinomial(size, np.full(size, 1.0 / size), num)[:, anchor]


def agreement(gaps: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    """Returns the share of triplets whose positive is strictly nearer.

    Args:
      gaps: `[T]` floats of one distance; a tie counts as wrong.
      samples: `[S, T]` from `bootstrap_weights`.

    Returns:
      `agreement`, and `low` and `high`, its 95 % bootstrap interval.
    """
    right = np.asarray(gaps) > 0
    return _with_interval(float(np.mean(right)), samples, right)


def difference(
    gaps: np.ndarray, others: np.ndarray, samples: np.ndarray
) -> dict[str, float]:
    """Returns how much more often `gaps` agree than `others`, on the same triplets.

    Args:
      gaps: `[T]` floats of one distance.
      others: `[T]` floats of another.
      samples: `[S, T]` from `bootstrap_weights`.

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
