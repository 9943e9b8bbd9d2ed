"""Which queries to show, with which neighbours: pure data for page and picture.

A relevance is shown as a grade: 0 for none, then 1, 2, ... up to the most relevant.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.evaluation.average_precision import average_precision
from deeprank_jax.relevance import Relevance
from deeprank_jax.report.number_format import format_number
from deeprank_jax.search.neighbors import neighbor_blocks

_MAX_GRADES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """A split searched with its own records, leave-one-out.

    Attributes:
      queries: `[M]` the records that take part, by index.
      neighbors: `[M, K]` each query's nearest records, by index, nearest first.
      distances: `[M, K]` squared distances, ascending.
      average_precision: `[M]` at R; NaN for the only record of its class.
    """

    queries: np.ndarray
    neighbors: np.ndarray
    distances: np.ndarray
    average_precision: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One query of a panel.

    Attributes:
      query: index of the record.
      neighbors: `[K]` indices, nearest first.
      distances: `[K]` squared distances to the query.
      relevance: `[K]` relevance to the query.
      average_precision: at R; NaN for the only record of its class.
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
      edges: the least relevance of each grade above 0, ascending.
      names: what each grade means, grade 0 first.
    """

    edges: tuple[float, ...]
    names: tuple[str, ...]

    def of(self, relevance: np.ndarray) -> np.ndarray:
        """Returns the grade of each relevance, same shape."""
        return np.searchsorted(self.edges, relevance, side="right")


def rank_records(
    records: Records,
    embeddings: np.ndarray,
    where: np.ndarray | None = None,
    *,
    num_neighbors: int = 8,
) -> Ranking:
    """Searches a split with its own records.

    Args:
      records: the split.
      embeddings: `[N, D]` float, a row for each record.
      where: optional `[N]` bool; the others are neither query nor gallery.
      num_neighbors: how many to keep, fewer if there are fewer records.

    Returns:
      The ranking, with no neighbours if fewer than two records take part.
    """
    chosen = np.arange(len(records)) if where is None else np.flatnonzero(where)
    labels = records.labels[chosen, -1]
    _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    num_relevant = counts[label] - 1
    depth = min(max(num_neighbors, num_relevant.max(initial=0)), len(chosen) - 1)
    shape = (len(chosen), max(0, min(num_neighbors, depth)))
    ranking = Ranking(
        queries=chosen,
        neighbors=np.zeros(shape, int),
        distances=np.zeros(shape, np.float32),
        average_precision=np.full(len(chosen), np.nan),
    )
    if depth < 1:
        return ranking
    taken = embeddings[chosen]
    # Only a block of the queries is ever ranked to the depth of the largest class.
    blocks = neighbor_blocks(taken, taken, depth, exclude_self=True)
    for rows, distances, found in blocks:
        ranking.neighbors[rows] = chosen[found[:, :num_neighbors]]
        ranking.distances[rows] = distances[:, :num_neighbors]
        hits = labels[found] == labels[rows, None]
        precision = average_precision(hits, num_relevant[rows])
        ranking.average_precision[rows] = np.where(
            num_relevant[rows] > 0, precision, np.nan
        )
    return ranking


def choose_queries(
    records: Records, ranking: Ranking, num_queries: int, *, seed: int = 0
) -> np.ndarray:
    """Chooses queries at random, as many from each coarse class as from the next.

    Returns:
      At most `num_queries` rows of the ranking; classes of one record are left out,
      and no fine class is shown twice while there are others.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.flatnonzero(~np.isnan(ranking.average_precision)))
    labels = records.labels[ranking.queries[rows]]
    turn = _occurrence(labels[:, -1])
    # Rows are counted within their coarse class only after repeats are put last.
    order = np.argsort(turn, kind="stable")
    rows, labels, turn = rows[order], labels[order], turn[order]
    round_ = _occurrence(labels[:, 0])
    return rows[np.lexsort((labels[:, 0], round_, turn > 0))][:num_queries]


def worst_queries(records: Records, ranking: Ranking, num_queries: int) -> np.ndarray:
    """Chooses the queries of lowest average precision, one of each fine class.

    Among equals come first those whose nearest image is nearest: where the embedding
    was most sure of itself.

    Returns:
      At most `num_queries` rows of the ranking, worst first.
    """
    rows = np.flatnonzero(~np.isnan(ranking.average_precision))
    nearest = ranking.distances[rows].min(axis=1, initial=np.inf)
    rows = rows[np.lexsort((nearest, ranking.average_precision[rows]))]
    labels = records.labels[ranking.queries[rows], -1]
    return rows[_occurrence(labels) == 0][:num_queries]


def create_rows(
    records: Records, relevance: Relevance, ranking: Ranking, chosen: np.ndarray
) -> list[Row]:
    """Collects what a panel shows of the chosen rows of a ranking."""
    rows = []
    for i in chosen:
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
    """Returns how many levels, from the coarsest, labels `[..., L]` share."""
    return np.cumprod(a == b, axis=-1).sum(axis=-1)


def create_grades(
    relevance: np.ndarray, depth: np.ndarray, level_names: Sequence[str]
) -> Grades:
    """Finds the grades that tell the given pairs apart.

    Up to four different relevances get a grade each, named by the level that all
    their pairs share; of more, every quarter of the pairs gets one.

    Args:
      relevance: `[P]` relevance of each pair, at least 0.
      depth: `[P]` ints, `shared_depth` of each pair.
      level_names: from coarse to fine.
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
    return f"another {level_names[0]}" if not depths.any() else "not relevant"


def _occurrence(labels: np.ndarray) -> np.ndarray:
    """Returns `[N]`, how many earlier elements have the same label."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first = np.searchsorted(ordered, ordered)
    result = np.empty(len(labels), int)
    result[order] = np.arange(len(labels)) - first
    return result
