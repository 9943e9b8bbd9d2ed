"""Queries and neighbours of the report's panels, as data for page and picture.

A relevance is shown as a grade: 0 for none, then 1, 2, ... up to the most relevant.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.evaluation.rankings import Ranking
from deeprank_jax.relevance import Relevance
from deeprank_jax.report.number_format import format_number

_MAX_GRADES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One query of a panel.

    Attributes:
      query: Index of the record.
      neighbors: `[K]` int, indices of records, nearest first.
      distances: `[K]` squared distances to the query.
      relevance: `[K]` relevances to the query.
      average_precision: Average precision at R; NaN for the only record of its class.
    """

    query: int
    neighbors: np.ndarray
    distances: np.ndarray
    relevance: np.ndarray
    average_precision: float


@dataclasses.dataclass(frozen=True)
class Grades:
    """A few steps of relevance that a person can tell apart.

    Attributes:
      edges: Least relevance of each grade above 0, ascending.
      names: Meaning of each grade, grade 0 first.
    """

    edges: tuple[float, ...]
    names: tuple[str, ...]

    def of(self, relevance: np.ndarray) -> np.ndarray:
        """Returns the grade of each relevance, same shape."""
        return np.searchsorted(self.edges, relevance, side="right")


def choose_queries(
    records: Records, ranking: Ranking, num_queries: int, *, seed: int = 0
) -> np.ndarray:
    """Chooses random queries, evenly over the coarse classes.

    Args:
      records: Records of the split.
      ranking: Ranking of the split.
      num_queries: Maximal number of queries.
      seed: Seed of the choice.

    Returns:
      At most `num_queries` rows of the ranking; classes of one record are left out,
      and no fine class is shown twice while there are others.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.flatnonzero(~np.isnan(ranking.average_precision)))
    labels = records.labels[ranking.queries[rows]]
    turn = _occurrence(labels[:, -1])
    # Repeats come last before rows are counted within their coarse class.
    order = np.argsort(turn, kind="stable")
    rows, labels, turn = rows[order], labels[order], turn[order]
    round_ = _occurrence(labels[:, 0])
    return rows[np.lexsort((labels[:, 0], round_, turn > 0))][:num_queries]


def worst_queries(records: Records, ranking: Ranking, num_queries: int) -> np.ndarray:
    """Chooses the queries of lowest average precision, one of each fine class.

    Among equals come first those whose nearest image is nearest, where the embedding
    was most confident.

    Args:
      records: Records of the split.
      ranking: Ranking of the split.
      num_queries: Maximal number of queries.

    Returns:
      At most `num_queries` rows of the ranking, worst first.
    """
    rows = np.flatnonzero(~np.isnan(ranking.average_precision))
    nearest = ranking.distances[rows].min(axis=1, initial=np.inf)
    rows = rows[np.lexsort((nearest, ranking.average_precision[rows]))]
    labels = records.labels[ranking.queries[rows], -1]
    return rows[_occurrence(labels) == 0][:num_queries]


def create_rows(
    records: Records, relevance: Relevance, ranking: Ranking, query_rows: np.ndarray
) -> list[Row]:
    """Returns the data of a panel.

    Args:
      records: Records of the split.
      relevance: Relevance of two records.
      ranking: Ranking of the split.
      query_rows: `[Q]` int, rows of the ranking to show.
    """
    rows = []
    for i in query_rows:
        query, neighbors = int(ranking.queries[i]), ranking.neighbors[i]
        attributes = records.attributes
        rows.append(
            Row(
                query=query,
                neighbors=neighbors,
                distances=ranking.distances[i],
                relevance=np.asarray(
                    relevance.pairwise(attributes[query][None], attributes[neighbors])
                ),
                average_precision=float(ranking.average_precision[i]),
            )
        )
    return rows


def shared_depth(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the number of levels that labels `[..., L]` share from the coarsest."""
    return np.cumprod(a == b, axis=-1).sum(axis=-1)


def create_grades(
    relevance: np.ndarray, depth: np.ndarray, level_names: Sequence[str]
) -> Grades:
    """Returns grades that distinguish the given pairs.

    Up to four different relevances get a grade each, named by the level that all
    their pairs share; if there are more, every quarter of the pairs gets one.

    Args:
      relevance: `[P]` relevance of each pair, at least 0.
      depth: `[P]` int, `shared_depth` of each pair.
      level_names: Names of the levels, from coarse to fine.
    """
    # float32 and float64 relevances of the same level are one value.
    values = np.array([float(f"{value:.5g}") for value in relevance])
    edges = np.unique(values[values > 0])
    by_value = len(edges) <= _MAX_GRADES
    if not by_value:
        shares = np.arange(_MAX_GRADES) / _MAX_GRADES
        edges = np.unique(np.quantile(values[values > 0], shares))
    names = [_name_zero(depth[values == 0], level_names)]
    for i, edge in enumerate(edges):
        depths = np.unique(depth[values == edge])
        if not by_value:
            last = i + 1 == len(edges)
            below = " and more" if last else f" to {format_number(edges[i + 1])}"
            names.append(f"relevance {format_number(edge)}{below}")
        elif len(depths) == 1 and depths[0]:
            names.append(f"same {level_names[depths[0] - 1]}")
        else:
            names.append(f"relevance {format_number(edge)}")
    return Grades(tuple((edges * (1 - 1e-4)).tolist()), tuple(names))


def pairs_of_rows(
    records: Records, rows: Sequence[Row]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the relevance `[P]` and `shared_depth` `[P]` of all pairs in a panel."""
    labels = records.labels
    depth = [
        shared_depth(labels[row.query][None], labels[row.neighbors]) for row in rows
    ]
    relevance = [row.relevance for row in rows]
    return np.concatenate([[], *relevance]), np.concatenate([np.zeros(0, int), *depth])


def _name_zero(depths: np.ndarray, level_names: Sequence[str]) -> str:
    """Returns the level that no irrelevant pair shares, e.g. "another class"."""
    deepest = int(depths.max(initial=0))
    return (
        f"another {level_names[deepest]}"
        if deepest < len(level_names)
        else "not relevant"
    )


def _occurrence(labels: np.ndarray) -> np.ndarray:
    """Returns `[N]`, the number of earlier elements with the same label."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first = np.searchsorted(ordered, ordered)
    result = np.empty(len(labels), int)
    result[order] = np.arange(len(labels)) - first
    return result
