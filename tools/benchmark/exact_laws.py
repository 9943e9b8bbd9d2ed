"""Equations (6) to (8) by enumeration: reference laws for tests and benchmarks."""

import numpy as np
from scipy import stats

from deeprank_jax.relevance import Relevance


def enumerate_laws(
    attributes: np.ndarray,
    category: np.ndarray,
    relevance: Relevance,
    *,
    cap: float,
    gap: float,
    out_of_class: float,
    mode: str = "importance",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the laws of positives and of both kinds of negatives.

    Every anchor must have a positive, or relevance 0 to all; gap is above 0.

    Args:
      attributes: `[N, A]`, attributes of a few dozen records.
      category: `[N]` ints, category of each record.
      relevance: Relevance of two records by their attributes.
      cap: Cap `T_p`.
      gap: Gap `T_r`.
      out_of_class: Share of negatives from other categories.
      mode: Weights of the draws; `"uniform"` weighs all relevant records alike.

    Returns:
      `[N, N]` of anchor and positive; `[N, N, N]` of anchor, positive and in-class
      negative; the same of out-of-class negatives. The last two sum to 1 together.
    """
    num = len(attributes)
    same = category[:, None] == category
    r = np.asarray(relevance.pairwise(attributes[:, None], attributes[None]), float)
    r = np.where(same & ~np.eye(num, dtype=bool), r, 0.0)
    anchors, pull = r.sum(axis=1), np.minimum(cap, r)
    push = pull
    if mode == "uniform":
        anchors, pull, push = (anchors > 0) * 1.0, (r > 0) * 1.0, np.ones_like(r)
    positives = np.zeros((num, num))
    inside, outside = np.zeros((2, num, num, num))
    for i in range(num):
        for p in np.flatnonzero(r[i]):
            chance = anchors[i] / anchors.sum() * pull[i, p] / pull[i].sum()
            positives[i, p] = chance
            allowed = same[i] & (r[i, p] - r[i] >= gap) & (np.arange(num) != i)
            weight = push[i] * allowed if (push[i] * allowed).any() else 1.0 * allowed
            other = out_of_class if allowed.any() else 1.0
            if allowed.any():
                inside[i, p] = chance * (1 - other) * weight / weight.sum()
            if not same[i].all():
                outside[i, p] = chance * other * ~same[i] / (~same[i]).sum()
    return positives, inside, outside


def chi_square(cells: np.ndarray, law: np.ndarray) -> float:
    """Returns the p-value of draws; 0 after a draw that the law excludes.

    Args:
      cells: `[n, K]` ints, cell of each draw.
      law: Weight of each cell, over `K` axes; cells that expect fewer than 5 draws
        are pooled.
    """
    counts = np.bincount(np.ravel_multi_index(cells.T, law.shape), minlength=law.size)
    expected = law.ravel() / law.sum() * len(cells)
    if counts[expected == 0].any():
        return 0.0
    few = expected < 5
    counts, expected = (np.append(x[~few], x[few].sum()) for x in (counts, expected))
    possible = expected > 0
    return float(stats.chisquare(counts[possible], expected[possible]).pvalue)
