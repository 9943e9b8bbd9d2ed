"""Metrics of listed pairs of images that are similar or not."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from deeprank_jax.evaluation.scores import (
    NothingToMeasureError,
    QueryEvaluator,
    QueryScores,
    check_rows,
)
from deeprank_jax.sampling.pair_sampler import ListedPairs


class Pairs(QueryEvaluator):
    """ROC AUC, average precision and best accuracy of the pairs of a file.

    A pair counts for its first image. The metrics are functions of all pairs at once;
    the scores of a pair are its part of their first-order change with the weights of
    the pairs (the infinitesimal jackknife), so that intervals contain the variation of
    similar and of different pairs. That of ROC AUC is then DeLong's, if each image is
    in one pair.

    Attributes:
      pairs: Pairs of the file whose images are both in the split.

    References:
      DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More
      Correlated Receiver Operating Characteristic Curves, 1988,
      https://doi.org/10.2307/2531595.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "roc_auc": "Share of all couples of a similar and a different pair whose "
        "similar pair is nearer; an equal distance counts half.",
        "average_precision": "Mean, over the similar pairs, of the share of similar "
        "pairs among those that are no farther.",
        "best_accuracy": "Share of pairs on the right side of the distance that is "
        "best for these very pairs, and so somewhat too high.",
        "num_pairs": "Number of pairs.",
        "num_similar": "Number of similar pairs.",
    }

    def __init__(
        self,
        labels: np.ndarray,
        split: str,
        read_pairs: Callable[[str], ListedPairs],
        *,
        file: str,
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` int, labels of the split, for their number.
          split: Name of the split.
          read_pairs: Function from the file to its pairs of the split.
          file: Path of a file with the columns `a,b,similar`; `{split}` in it stands
            for the split.

        Raises:
          NothingToMeasureError: The split has no similar pair, or no different one.
          DataError: The file cannot be used.
          ValueError: There is no file.
        """
        if not file:
            raise ValueError("file must be the path of a file of pairs.")
        self.pairs = read_pairs(file.replace("{split}", split))
        self.pairs.check_kinds(split, NothingToMeasureError)
        self._num_records = len(labels)

    def facts(self) -> dict[str, str]:
        """Returns the number of pairs, for the report."""
        return {"Pairs": self.pairs.describe()}

    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        """Measures the pairs by the distances of their embeddings.

        Args:
          embeddings: `[N, D]` float, one row per record.
          where: Optional `[N]` bool; a pair counts if both its images do.
          queries: Optional `[N, D]` float, embeddings of the first images; None for
            `embeddings`.

        Returns:
          For each metric the scores of the `N` records as first images. Without a
          similar and a different pair there are none.

        Raises:
          ValueError: There is not one row per record, or one is not finite.
        """
        rows = check_rows(self._num_records, embeddings, where, queries)
        embeddings, where, queries = rows
        counts = where[self.pairs.indices].all(axis=1)
        is_similar = self.pairs.is_similar[counts]
        if is_similar.all() or not is_similar.any():
            is_similar, counts = is_similar[:0], np.zeros_like(counts)
        a, b = self.pairs.indices[counts].T
        gaps = queries[a].astype(np.float64) - embeddings[b]
        _, places = np.unique(np.sum(np.square(gaps), axis=1), return_inverse=True)
        of_metric = {
            "roc_auc": roc_auc(places, is_similar),
            "average_precision": average_precision(places, is_similar),
            "best_accuracy": best_accuracy(places, is_similar),
        }
        spread = lambda values: np.bincount(a, values, self._num_records)
        num_pairs, num_similar = spread(np.ones(len(a))), spread(is_similar)
        scores = {
            name: QueryScores(spread(values), num_pairs)
            for name, values in of_metric.items()
        }
        scores["num_pairs"] = QueryScores(num_pairs, num_pairs, is_sum=True)
        scores["num_similar"] = QueryScores(num_similar, num_similar, is_sum=True)
        return scores


def roc_auc(places: np.ndarray, is_similar: np.ndarray) -> np.ndarray:
    """Returns scores of pairs `[P]`, whose mean is the area under the ROC curve.

    Args:
      places: `[P]` ints from 0, ranks of the pairs by distance; equal for equal ones.
      is_similar: `[P]` bool, True for a similar pair.
    """
    if not len(places):
        return np.zeros(0)
    similar, different = _histograms(places, is_similar)
    num_similar, num_different = similar.sum(), different.sum()
    # Shares of the different pairs beyond each place, and of similar ones before it.
    beyond = num_different - np.cumsum(different) + different / 2
    before = np.cumsum(similar) - similar / 2
    shares = np.where(
        is_similar, beyond[places] / num_different, before[places] / num_similar
    )
    area = shares[is_similar].mean()
    sizes = np.where(is_similar, num_similar, num_different)
    return area + len(places) * (shares - area) / sizes


def average_precision(places: np.ndarray, is_similar: np.ndarray) -> np.ndarray:
    """Returns scores of pairs `[P]`, whose mean is the average precision.

    Args:
      places: `[P]` ints, see `roc_auc`.
      is_similar: `[P]` bool, True for a similar pair.
    """
    if not len(places):
        return np.zeros(0)
    similar, different = _histograms(places, is_similar)
    sum_similar, sum_all = np.cumsum(similar), np.cumsum(similar + different)
    precision = sum_similar / sum_all
    average = np.sum(similar * precision) / similar.sum()
    # How the precisions at a place and beyond change with a pair's weight.
    reversed_sum = lambda x: np.cumsum(x[::-1])[::-1]
    change = similar / np.square(sum_all)
    with_similar = precision + reversed_sum(change * (sum_all - sum_similar)) - average
    with_different = -reversed_sum(change * sum_similar)
    influence = np.where(is_similar, with_similar[places], with_different[places])
    return average + len(places) * influence / similar.sum()


def best_accuracy(places: np.ndarray, is_similar: np.ndarray) -> np.ndarray:
    """Returns `[P]` 1 for pairs on the right side of the best distance, else 0.

    Args:
      places: `[P]` ints, see `roc_auc`.
      is_similar: `[P]` bool, True for a similar pair.
    """
    if not len(places):
        return np.zeros(0)
    similar, different = _histograms(places, is_similar)
    num_more_right = np.concatenate([[0], np.cumsum(similar - different)])
    # Pairs at places below the best one are called similar.
    is_near = places < np.argmax(num_more_right)
    return 1.0 * (is_near == is_similar)


def _histograms(
    places: np.ndarray, is_similar: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of similar and of different pairs at each place."""
    size = int(places.max()) + 1
    similar = np.bincount(places, is_similar, size)
    return similar, np.bincount(places, ~is_similar, size)
