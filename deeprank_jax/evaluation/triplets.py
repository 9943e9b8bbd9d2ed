"""Triplet metrics: similarity precision and score-at-top-K.

Triplets are `[T, 3]` record indices: anchor (the paper's "query"), positive, negative.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from deeprank_jax.evaluation.scores import QueryEvaluator, QueryScores, check_rows

# Distances held at a time: 64 MiB as float64.
_BLOCK_VALUES = 2**23


class Triplets(QueryEvaluator):
    """Similarity precision and score-at-top-K.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "precision": "Share of triplets whose positive is nearer than their negative.",
        "precision_in_class": "Precision over triplets whose negative is of the "
        "anchor's category.",
        "precision_out_of_class": "Precision over triplets whose negative is of "
        "another category.",
        "score_at_{k}": "Correct minus wrong triplets, among those with an image in "
        "the anchor's top {k}.",
        "score_at_{k}_share": "score_at_{k} divided by the number of triplets that it "
        "counts.",
        "num_triplets": "Number of triplets.",
    }

    def __init__(
        self,
        labels: np.ndarray,
        triplets: np.ndarray,
        *,
        category_level: int | None = 0,
        k: int = 30,
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` int, labels from coarse to fine.
          triplets: `[T, 3]` int, indices of records.
          category_level: Level of the labels that is the category: an anchor's
            candidates are the other records of its category, and a negative is
            in-class if it is among them. None makes all records one category.
          k: K of score-at-top-K, at least 1.

        Raises:
          ValueError: `k` is less than 1, or the triplets have another shape or name
            records that do not exist.
        """
        labels, triplets = np.asarray(labels), np.asarray(triplets)
        if triplets.ndim != 2 or triplets.shape[1] != 3:
            raise ValueError(f"triplets must be [T, 3], got {triplets.shape}.")
        if np.any((triplets < 0) | (triplets >= len(labels))):
            raise ValueError(
                f"triplets name records {triplets.min()} to {triplets.max()}, there "
                f"are {len(labels)}: they were drawn from another split."
            )
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        self._categories = (
            np.zeros(len(labels), int)
            if category_level is None
            else labels[:, category_level]
        )
        # Triplets of one anchor share its distances, which are computed once.
        self._triplets = triplets[np.argsort(triplets[:, 0], kind="stable")]
        self._in_class = np.equal(*self._categories[self._triplets[:, [0, 2]]].T)
        self._k = k

    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        """Measures similarity precision and score-at-top-K, anchor by anchor.

        A triplet is correct if its positive is strictly nearer than its negative: a tie
        counts as wrong. `precision` is the share of correct triplets, of all and, where
        there are such, of those with an in-class and an out-of-class negative:
        `precision_in_class`, `precision_out_of_class`.

        The rank of an image is the number of the anchor's candidates that are strictly
        nearer; an out-of-class negative is ranked among them likewise. A triplet counts
        if its positive or its negative is among the top K. `score_at_K` is the number
        of correct less the number of wrong triplets among these, `score_at_K_share`
        the same divided by their number. `num_triplets` is the number of all triplets.

        Args:
          embeddings: `[N, D]` float, one row per record.
          where: Optional `[N]` bool, the records that take part; triplets that hold
            another record are left out.
          queries: Optional `[N, D]` float, the anchors; None for `embeddings`.

        Returns:
          Scores of the `N` records as anchors, weighted by their triplets.
        """
        embeddings, where, queries = check_rows(
            len(self._categories), embeddings, where, queries
        )
        # Rows that take no part may hold NaN.
        usable = lambda rows: np.where(where[:, None], rows.astype(np.float64), 0.0)
        if queries is embeddings:  # Descriptors may be long: not twice in memory.
            queries = embeddings = usable(embeddings)
        else:
            queries, embeddings = usable(queries), usable(embeddings)
        takes_part = where[self._triplets].all(axis=1)
        triplets, in_class = self._triplets[takes_part], self._in_class[takes_part]
        correct, nearer = self._measure(queries, embeddings, where, triplets)
        in_top_k = (nearer < self._k).any(axis=1)
        per_anchor = lambda x: np.bincount(
            triplets[:, 0], weights=x, minlength=len(where)
        )
        num = per_anchor(np.ones(len(triplets)))
        score = per_anchor(np.where(correct, 1.0, -1.0) * in_top_k)
        scores = {"precision": QueryScores(per_anchor(correct), num)}
        has = {"in": self._in_class.any(), "out_of": not self._in_class.all()}
        for name, group in ("in", in_class), ("out_of", ~in_class):
            if has[name]:  # Independent of `where`, so that systems can be compared.
                scores[f"precision_{name}_class"] = QueryScores(
                    per_anchor(correct & group), per_anchor(group)
                )
        return scores | {
            f"score_at_{self._k}": QueryScores(score, num, is_sum=True),
            f"score_at_{self._k}_share": QueryScores(score, per_anchor(in_top_k)),
            "num_triplets": QueryScores(num, num, is_sum=True),
        }

    def _measure(
        self,
        queries: np.ndarray,
        embeddings: np.ndarray,
        where: np.ndarray,
        triplets: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measures every triplet, a block of them at a time.

        Returns:
          `[T]` bool, True for correct triplets, and `[T, 2]` int, the numbers of
          candidates nearer than the positive and than the negative.
        """
        # Each distinct row is measured once, so that equal rows are equally far to the
        # last bit.
        unique, inverse = np.unique(embeddings, axis=0, return_inverse=True)
        norms = np.square(unique).sum(axis=1)
        correct = np.zeros(len(triplets), bool)
        nearer = np.zeros((len(triplets), 2), int)
        step = max(1, _BLOCK_VALUES // max(*embeddings.shape, 1))
        for start in range(0, len(triplets), step):
            block = slice(start, start + step)
            anchors, row = np.unique(triplets[block, 0], return_inverse=True)
            # Without the anchor's norm, which is the same for all; may be below 0.
            distances = norms - 2.0 * queries[anchors] @ unique.T
            distances = distances[:, inverse.reshape(-1)]
            candidates = where & (
                self._categories[anchors, None] == self._categories[None]
            )
            candidates[np.arange(len(anchors)), anchors] = False
            ranked = np.sort(np.where(candidates, distances, np.inf), axis=1)
            for side in 0, 1:
                values = distances[row, triplets[block, 1 + side]]
                nearer[block, side] = [
                    np.searchsorted(ranked[r], value)
                    for r, value in zip(row, values, strict=True)
                ]
            # From differences, which keep more digits than the products above.
            gaps = queries[triplets[block, :1]] - embeddings[triplets[block, 1:]]
            near = np.square(gaps).sum(axis=2)
            correct[block] = near[:, 0] < near[:, 1]
        return correct, nearer
