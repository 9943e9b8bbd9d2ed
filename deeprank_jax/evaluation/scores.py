"""What each query adds to a metric: the rows that a number and its interval are of."""

import abc
from collections.abc import Iterator
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class QueryScores:
    """A metric, query by query.

    There is a row for each record of the split, so that the scores of two systems on
    the same split line up row by row. The metric is the sum of the values divided by
    the sum of the weights, or the sum of the values alone.

    Attributes:
      values: `[Q]` float64, finite; 0 where the query does not count.
      weights: `[Q]` float64, finite, at least 0; 0 where the query does not count.
      is_sum: the metric is the plain sum; the weights only say which queries count.
    """

    values: np.ndarray
    weights: np.ndarray
    is_sum: bool = False

    def __post_init__(self):
        """Checks the two against each other.

        Raises:
          ValueError: the shapes differ, a number is not finite, a weight is negative
            or a query that does not count has a value.
        """
        values = np.asarray(self.values, np.float64)
        weights = np.asarray(self.weights, np.float64)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "weights", weights)
        if values.ndim != 1 or values.shape != weights.shape:
            raise ValueError(
                f"values and weights must be [Q] both, got {values.shape} and "
                f"{weights.shape}."
            )
        if not (np.isfinite(values).all() and np.isfinite(weights).all()):
            raise ValueError("A query's value and weight must be finite.")
        if np.any(weights < 0) or np.any(values[weights == 0]):
            raise ValueError(
                "A weight must be at least 0, and a query of weight 0 has the value 0."
            )

    @property
    def counts(self) -> np.ndarray:
        """`[Q]` bool, which queries count."""
        return self.weights > 0

    @property
    def value(self) -> float:
        """The metric; 0 if no query counts."""
        # Without the others, which would change how rounding falls.
        total = float(self.values[self.counts].sum())
        if self.is_sum or not self.counts.any():
            return total
        return total / float(self.weights[self.counts].sum())


def mean_over(values: np.ndarray, where: np.ndarray) -> QueryScores:
    """Returns a mean over the queries that count.

    Args:
      values: `[Q]`, of every query.
      where: `[Q]` bool, which count.
    """
    return QueryScores(np.where(where, values, 0.0), where)


def sum_over(values: np.ndarray, where: np.ndarray) -> QueryScores:
    """Returns a sum over the queries that count.

    Args:
      values: `[Q]`, of every query.
      where: `[Q]` bool, which count.
    """
    return QueryScores(np.where(where, values, 0.0), where, is_sum=True)


class Evaluator(abc.ABC):
    """What every evaluator does."""

    @abc.abstractmethod
    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        """Measures every query.

        Args:
          embeddings: `[N, D]` float, a row for each record of the split.
          where: optional `[N]` bool, the records that take part; None takes all.
          queries: optional `[N, D]` float, for a similarity that is not symmetric:
            record `i` as a query is `queries[i]`, and as what is searched
            `embeddings[i]`, and squared Euclidean distances are between the two. None
            for the embeddings.

        Returns:
          For each metric the scores of `N` queries, record `i` being query `i`.

        Raises:
          ValueError: there is not one row for each record, or one that takes part is
            not finite.
        """
        ...

    def run(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> Iterator[tuple[str, float]]:
        """Yields names and values of the metrics; a mean over no queries is 0.

        Args:
          embeddings: as of `measure`.
          where: as of `measure`.
          queries: as of `measure`.

        Raises:
          ValueError: as `measure`.
        """
        for name, scores in self.measure(embeddings, where, queries=queries).items():
            yield name, scores.value


def check_rows(
    num_records: int,
    embeddings: np.ndarray,
    where: np.ndarray | None,
    queries: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checks what `Evaluator.measure` is given.

    Args:
      num_records: `N`, how many records the evaluator was made for.
      embeddings: as of `Evaluator.measure`.
      where: as of `Evaluator.measure`.
      queries: as of `Evaluator.measure`.

    Returns:
      `embeddings [N, D]`, `where [N]` bool and `queries [N, D]`.

    Raises:
      ValueError: as `Evaluator.measure`.
    """
    embeddings = np.asarray(embeddings)
    queries = embeddings if queries is None else np.asarray(queries)
    if len(embeddings) != num_records:
        raise ValueError(
            f"{len(embeddings)} embeddings for {num_records} records: "
            "give one row for each record, and leave bad ones out by `where`."
        )
    if embeddings.ndim != 2 or queries.shape != embeddings.shape:
        raise ValueError(
            f"embeddings and queries must both be [N, D], got {embeddings.shape} and "
            f"{queries.shape}: both must come from the same model."
        )
    where = np.ones(num_records, bool) if where is None else np.asarray(where, bool)
    if where.shape != (num_records,):
        raise ValueError(
            f"where must be [N], one truth value for each of {num_records} records, "
            f"got {where.shape}."
        )
    for rows in (embeddings,) if queries is embeddings else (embeddings, queries):
        bad = np.flatnonzero(where & ~_can_be_squared(rows))
        if len(bad):
            raise ValueError(
                f"{len(bad)} of {np.count_nonzero(where)} embeddings are not finite or "
                f"too long for float32, the first is row {bad[0]}: leave them out by "
                "`where`, or look for the step at which training diverged."
            )
    return embeddings, where, queries


def check_gains(gains: np.ndarray, metric: str) -> None:
    """Checks relevances that a metric is made of.

    Args:
      gains: of any shape.
      metric: what the metric is called.

    Raises:
      ValueError: one is negative or not finite.
    """
    if not np.all(np.isfinite(gains) & (gains >= 0)):
        raise ValueError(
            f"A relevance is negative or not finite: {metric} is defined for "
            "relevances of at least 0; look at what the evaluator's relevance returns."
        )


def _can_be_squared(rows: np.ndarray) -> np.ndarray:
    """Returns `[N]` bool, whose distances to one another are finite as float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        short = rows.astype(np.float32, copy=False)
        # The farthest of two equally long are four times as far as they are long.
        return 4 * np.einsum("nd,nd->n", short, short) < np.inf
