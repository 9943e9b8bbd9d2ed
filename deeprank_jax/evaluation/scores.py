"""Evaluators and per-query scores, from which metrics and intervals are computed."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import itertools
import string
from typing import ClassVar

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.evaluation.matrices import Matrix

# Function from uint8 images `[B, H, W, 3]` and the indices `[B]` of their records to
# changed images of the same shape and type.
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


class NothingToMeasureError(DataError):
    """A split has nothing that an evaluator could measure, e.g. no triplet."""


@dataclasses.dataclass(frozen=True, eq=False)
class QueryScores:
    """A metric, query by query.

    There is a row for each record of the split, so that the scores of two systems on
    the same split line up row by row. The metric is the sum of the values divided by
    the sum of the weights, or the sum of the values alone.

    Attributes:
      values: `[Q]` float64, finite; 0 where the query does not count.
      weights: `[Q]` float64, finite, at least 0; 0 where the query does not count.
      is_sum: True if the metric is the plain sum; the weights then only mark the
        queries that count.
    """

    values: np.ndarray
    weights: np.ndarray
    is_sum: bool = False

    def __post_init__(self):
        """Checks the two against each other.

        Raises:
          ValueError: The shapes differ, a number is not finite, a weight is negative
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
            raise ValueError("values and weights must be finite.")
        if np.any(weights < 0) or np.any(values[weights == 0]):
            raise ValueError(
                "weights must be at least 0, and a query of weight 0 has the value 0."
            )

    @property
    def counts(self) -> np.ndarray:
        """`[Q]` bool, the queries that count."""
        return self.weights > 0

    @property
    def value(self) -> float:
        """The metric; 0 if no query counts."""
        # Zeros in between would change how the sum is rounded.
        total = float(self.values[self.counts].sum())
        if self.is_sum or not self.counts.any():
            return total
        return total / float(self.weights[self.counts].sum())


def mean_over(values: np.ndarray, where: np.ndarray) -> QueryScores:
    """Returns a mean over the queries that count.

    Args:
      values: `[Q]` floats, one per query.
      where: `[Q]` bool, the queries that count.
    """
    return QueryScores(np.where(where, values, 0.0), where)


def sum_over(values: np.ndarray, where: np.ndarray) -> QueryScores:
    """Returns a sum over the queries that count.

    Args:
      values: `[Q]` floats, one per query.
      where: `[Q]` bool, the queries that count.
    """
    return QueryScores(np.where(where, values, 0.0), where, is_sum=True)


class Evaluator(abc.ABC):
    """Metrics of the embeddings of one split.

    Attributes:
      METRICS: Name and meaning of each metric, the meaning being one line. A name in
        braces stands for an option of the constructor; each value of a sequence gives
        a metric of its own: `{"recall@{ks}": "Share ... among the {ks} nearest."}`.
      prefix: First part of the metrics' names in results.json; None for the name under
        which the evaluator is registered.
      is_ranked: True if larger metrics are better; False for those that describe, of
        which no system has the best.
    """

    METRICS: ClassVar[Mapping[str, str]]
    prefix: ClassVar[str | None] = None
    is_ranked: ClassVar[bool] = True

    @abc.abstractmethod
    def run(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> Iterator[tuple[str, float]]:
        """Yields names and values of the metrics.

        Args:
          embeddings: `[N, D]` float, one row per record of the split.
          where: Optional `[N]` bool, the records that take part; None takes all.
          queries: Optional `[N, D]` float, for a similarity that is not symmetric:
            record `i` as a query is `queries[i]`, and in the gallery `embeddings[i]`;
            distances are squared Euclidean between the two. None for the embeddings.

        Raises:
          ValueError: There is not one row per record, or a row that takes part is not
            finite.
        """
        ...

    @classmethod
    def describe_metrics(cls, **options: object) -> dict[str, str]:
        """Returns name and meaning of each metric, with the options filled in.

        Args:
          **options: Values of the constructor's options.
        """
        described = {}
        for name, meaning in cls.METRICS.items():
            fields = [field for _, field, _, _ in string.Formatter().parse(name)]
            keys = [field for field in fields if field]
            for values in itertools.product(*(_as_list(options[key]) for key in keys)):
                option = dict(zip(keys, values, strict=True))
                described[name.format(**option)] = meaning.format(**option)
        return described

    def facts(self) -> dict[str, str]:
        """Returns lines for the report, by title; none by default."""
        return {}

    def matrices(
        self, embeddings: np.ndarray, where: np.ndarray | None = None
    ) -> list[Matrix]:
        """Returns tables that the report draws as heat maps; none by default.

        Args:
          embeddings: `[N, D]` float, see `run`.
          where: Optional `[N]` bool, see `run`.
        """
        del embeddings, where
        return []


class QueryEvaluator(Evaluator):
    """An evaluator whose metrics are sums or means over queries."""

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
          embeddings: `[N, D]` float, embeddings as in `Evaluator.run`.
          where: Optional `[N]` bool, see `Evaluator.run`.
          queries: Optional `[N, D]` float, see `Evaluator.run`.

        Returns:
          For each metric the scores of `N` queries, record `i` being query `i`.

        Raises:
          ValueError: See `Evaluator.run`.
        """
        ...

    def run(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> Iterator[tuple[str, float]]:
        """Yields names and values of the metrics; a mean over no queries is 0."""
        for name, scores in self.measure(embeddings, where, queries=queries).items():
            yield name, scores.value


class ChangedQueryEvaluator(Evaluator):
    """An evaluator of queries whose images are changed, e.g. by noise.

    Whoever embeds the split embeds the changed images, too. Where that is not possible,
    as with embeddings from a file, there is nothing to measure.
    """

    @abc.abstractmethod
    def changes(self) -> Mapping[str, Change]:
        """Returns the changes of the images by title."""
        ...

    @abc.abstractmethod
    def measure_changed(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None,
        changed: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> dict[str, QueryScores]:
        """Measures every changed query in the gallery of the unchanged images.

        Args:
          embeddings: `[N, D]` float, embeddings of the unchanged images.
          where: Optional `[N]` bool, see `Evaluator.run`.
          changed: Embeddings `[N, D]` of the changed images and `ok [N]` bool, those
            that have one, by the titles of `changes`.

        Returns:
          For each metric the scores of `N` queries.

        Raises:
          ValueError: See `Evaluator.run`.
        """
        ...

    def run(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> Iterator[tuple[str, float]]:
        """Yields nothing, since there are no changed images."""
        del embeddings, where, queries
        yield from ()


def check_rows(
    num_records: int,
    embeddings: np.ndarray,
    where: np.ndarray | None,
    queries: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checks the arguments of `Evaluator.run`.

    Args:
      num_records: Number of records of the split, `N`.
      embeddings: `[N, D]` float, embeddings as in `Evaluator.run`.
      where: Optional `[N]` bool, see `Evaluator.run`.
      queries: Optional `[N, D]` float, see `Evaluator.run`.

    Returns:
      `embeddings [N, D]`, `where [N]` bool and `queries [N, D]`.

    Raises:
      ValueError: See `Evaluator.run`.
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
    """Checks the relevances from which a metric is computed.

    Args:
      gains: Relevances, of any shape.
      metric: Name of the metric, for the message.

    Raises:
      DataError: A relevance is negative or not finite.
    """
    if not np.all(np.isfinite(gains) & (gains >= 0)):
        raise DataError(
            f"A relevance is negative or not finite: {metric} is defined for "
            "relevances of at least 0; look at what the evaluator's relevance returns."
        )


def _as_list(value: object) -> list[object]:
    """Returns the elements of a sequence, or a list of the value itself."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return list(value) if is_list else [value]


def _can_be_squared(rows: np.ndarray) -> np.ndarray:
    """Returns `[N]` bool, the rows whose distances are finite as float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        short = rows.astype(np.float32, copy=False)
        # Two rows of one length are at most twice that length apart.
        return 4 * np.einsum("nd,nd->n", short, short) < np.inf
