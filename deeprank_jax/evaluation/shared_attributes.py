"""Mean cosine of pairs of images, by the attributes that the two share."""

from collections.abc import Iterator, Mapping, Sequence
import itertools
from typing import ClassVar

import numpy as np

from deeprank_jax.data.named_labels import NamedLabels, find_labels
from deeprank_jax.data.records import Records
from deeprank_jax.evaluation.matrices import Matrix
from deeprank_jax.evaluation.scores import QueryEvaluator, QueryScores, check_rows

_SECTION = "config.evaluation.evaluators.shared_attributes"
# Combinations double with each attribute.
_MOST_NAMES = 5
# Rows of a matrix beyond which none is made.
_MOST_ROWS = 40
Sums = tuple[np.ndarray, np.ndarray]


class SharedAttributes(QueryEvaluator):
    r"""Mean cosines of all pairs of images with the same or other attributes.

    With all pairs of two different images, \( \theta = \sum c_{ij} / \sum n_{ij} \),
    where \(n_{ij}\) is 1 if the pair counts and \(c_{ij}\) its cosine. The score of an
    image is twice the sum of its cosines less \( \theta \) for each of its pairs: the
    mean is \( \theta \) again, and the variation of the scores is that of its
    first-order change with an image's weight (the infinitesimal jackknife), since an
    image takes part in a pair on either side.

    References:
      Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 21,
      https://doi.org/10.1201/9780429246593.
    """

    is_ranked: ClassVar[bool] = False
    METRICS: ClassVar[Mapping[str, str]] = {
        "same_{name}": "Mean cosine of the pairs of images with the same {name}.",
        "other_{name}": "Mean cosine of the pairs of images with different {name}.",
        "shared_{combination}": "Mean cosine of the pairs of images that have "
        "{combination} in common, and nothing else of {names}.",
        "{attribute}_differs_by_{step}": "Mean cosine of the pairs of images whose "
        "{attribute} differs by {step}.",
    }

    def __init__(
        self,
        records: Records,
        *,
        names: Sequence[str],
        steps: Mapping[str, float] | None = None,
    ):
        """Creates the evaluator.

        Args:
          records: Records of the split.
          names: Names of levels and columns, the attributes, at most 5.
          steps: Difference by the name of a level or column whose labels are numbers;
            pairs that differ by it are measured by themselves. None for none.

        Raises:
          DataError: The records have no attribute of a name, or one record lacks it.
          ValueError: There is no name, one is there twice, there are too many, or a
            step is not a number above 0 or its labels are no numbers.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        if not 1 <= len(names) <= _MOST_NAMES or len(set(names)) < len(names):
            raise ValueError(
                f"names must be 1 to {_MOST_NAMES} different levels or columns, got "
                f"{', '.join(names) or 'none'}."
            )
        self._names = names
        self._labels = [find_labels(records, x, f"{_SECTION}.names") for x in names]
        self._steps = {
            name: (_read_numbers(records, name), _check_step(name, step))
            for name, step in (steps or {}).items()
        }

    @classmethod
    def describe_metrics(cls, **options: object) -> dict[str, str]:
        """Returns name and meaning of each metric.

        Args:
          **options: Values of the constructor's options.
        """
        given, steps = options["names"], options["steps"]
        names = (given,) if isinstance(given, str) else tuple(given)  # pyrefly: ignore
        described = {}
        for key, values in _expansions(names, steps or {}):  # pyrefly: ignore
            described[key.format(**values)] = cls.METRICS[key].format(**values)
        return described

    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        """Measures every image.

        Args:
          embeddings: `[N, D]` float, one row per record.
          where: Optional `[N]` bool, the records that take part.
          queries: Optional `[N, D]` float, the records as queries; a cosine is then
            of one as a query and the other in the gallery. None for `embeddings`.

        Returns:
          For each metric the scores of the `N` records; metrics without a pair are left
          out.

        Raises:
          ValueError: There is not one row per record, or one is not finite.
        """
        num_records = len(self._labels[0].values)
        rows = check_rows(num_records, embeddings, where, queries)
        embeddings, where, queries = rows
        gallery, queries = _unit_rows(embeddings[where]), _unit_rows(queries[where])
        labels = np.stack([x.values[where] for x in self._labels], axis=1)
        scores = {}
        for name, (sums, counts) in self._sums(queries, gallery, labels, where):
            if counts.any():
                scores[name] = _image_scores(sums, counts, where)
        return scores

    def matrices(
        self, embeddings: np.ndarray, where: np.ndarray | None = None
    ) -> list[Matrix]:
        """Returns mean cosines by the values of the first attribute, and of all.

        An attribute that follows from those before it, as parity does from digit, is
        left out. So is a matrix of more than 40 rows.

        Args:
          embeddings: `[N, D]` float, one row per record.
          where: Optional `[N]` bool, the records that take part.
        """
        num_records = len(self._labels[0].values)
        embeddings, where, _ = check_rows(num_records, embeddings, where, None)
        rows = _unit_rows(embeddings[where])
        columns = self._independent_columns(where)
        matrices = []
        for part in dict.fromkeys([columns[:1], columns]):
            # Blocks of the last attribute, and within these of those before it.
            reversed_part = [self._labels[x] for x in part[::-1]]
            values, group = _number_rows([x.values[where] for x in reversed_part])
            if not 1 < len(values) <= _MOST_ROWS:
                continue
            title = ", ".join(self._names[x] for x in part)
            names = [
                [x.names[value] for x, value in zip(reversed_part, row, strict=True)]
                for row in values
            ]
            matrices.append(
                Matrix(
                    title=f"Mean cosine by {title}",
                    note=f"Of all pairs of two images, by the {title} of either.",
                    names=tuple(" ".join(x[::-1]) for x in names),
                    values=mean_cosines(rows, group),
                )
            )
        return matrices

    def _independent_columns(self, where: np.ndarray) -> tuple[int, ...]:
        """Returns the attributes that do not follow from those before them."""
        columns: tuple[int, ...] = ()
        num_values = 0
        for column in range(len(self._labels)):
            labels = [self._labels[x].values[where] for x in (*columns, column)]
            if (num := len(_number_rows(labels)[0])) > num_values or not columns:
                columns, num_values = (*columns, column), num
        return columns

    def _sums(
        self,
        queries: np.ndarray,
        gallery: np.ndarray,
        labels: np.ndarray,
        where: np.ndarray,
    ) -> Iterator[tuple[str, Sums]]:
        """Yields name, sums of cosines `[M]` and numbers of pairs `[M]`."""
        subsets = _subsets(range(labels.shape[1]))
        # Of the pairs that share a subset of the attributes, and maybe others.
        shared = {
            subset: _sums_within(queries, gallery, labels[:, list(subset)])
            for subset in subsets
        }
        whole = shared[()]
        for column, name in enumerate(self._names):
            sums, counts = shared[(column,)]
            yield f"same_{name}", (sums, counts)
            yield f"other_{name}", (whole[0] - sums, whole[1] - counts)
        for subset in reversed(subsets):
            sums, counts = np.zeros(len(labels)), np.zeros(len(labels), np.int64)
            for other in subsets:
                if set(subset) <= set(other):
                    sign = (-1) ** (len(other) - len(subset))
                    sums += sign * shared[other][0]
                    counts += sign * shared[other][1]
            names = [self._names[column] for column in subset]
            yield f"shared_{_join(names)}", (sums, counts)
        for name, (numbers, step) in self._steps.items():
            sums = _sums_apart(queries, gallery, numbers[where], step)
            yield f"{name}_differs_by_{step:g}", sums


def mean_cosines(rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns the mean cosine of two different rows by their groups, `[G, G]`.

    Args:
      rows: `[M, D]` float64, unit vectors.
      group: `[M]` ints, group of each row, from 0.

    Returns:
      `[G, G]` float64; NaN where there is no pair.
    """
    totals = _group_totals(rows, group)
    sizes = np.bincount(group).astype(np.float64)
    squares = np.bincount(group, np.sum(np.square(rows), axis=1))
    sums = totals @ totals.T - np.diag(squares)
    counts = np.outer(sizes, sizes) - np.diag(sizes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _expansions(
    names: Sequence[str], steps: Mapping[str, float]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields key and values of each metric, in the order of `_sums`."""
    for name in names:
        for kind in ("same", "other"):
            yield f"{kind}_{{name}}", {"name": name}
    listed = ", ".join(names)
    for subset in reversed(_subsets(names)):
        values = {"combination": _join(subset), "names": listed}
        yield "shared_{combination}", values
    for name, step in steps.items():
        values = {"attribute": name, "step": f"{step:g}"}
        yield "{attribute}_differs_by_{step}", values


def _subsets(elements: Sequence) -> list[tuple]:
    """Returns all subsets, the smallest first."""
    sizes = range(len(elements) + 1)
    return [x for size in sizes for x in itertools.combinations(elements, size)]


def _number_rows(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct rows of columns `[M]`, and the number of each row's."""
    values, group = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return values, group.reshape(-1)


def _join(names: Sequence[str]) -> str:
    return "+".join(names) or "nothing"


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Returns `[M, D]` float64 of length 1; a row of zeros stays as it is."""
    rows = rows.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def _group_totals(rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns the sum of the rows `[M, D]` of each group, `[G, D]`."""
    totals = np.zeros((int(group.max(initial=-1)) + 1, rows.shape[1]))
    np.add.at(totals, group, rows)
    return totals


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", a, b)


def _sums_within(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray) -> Sums:
    """Returns sums and numbers of each image's cosines to others with its labels.

    Each cosine is the mean of the image as a query and in the gallery.

    Args:
      queries: `[M, D]` unit vectors.
      gallery: `[M, D]` unit vectors.
      labels: `[M, A]` ints; without a column all images have the same.
    """
    group = np.zeros(len(labels), np.int64)
    if labels.shape[1]:
        _, group = _number_rows([*labels.T])
    sums = _dot(queries, _group_totals(gallery, group)[group] - gallery)
    sums += _dot(gallery, _group_totals(queries, group)[group] - queries)
    return sums / 2, np.bincount(group)[group] - 1


def _sums_apart(
    queries: np.ndarray, gallery: np.ndarray, numbers: np.ndarray, step: float
) -> Sums:
    """Returns sums and numbers of each image's cosines to others a step away.

    Args:
      queries: `[M, D]` unit vectors.
      gallery: `[M, D]` unit vectors.
      numbers: `[M]` float64, number of each image.
      step: Difference of the numbers of a pair, above 0.
    """
    values, group = np.unique(numbers, return_inverse=True)
    sizes = np.bincount(group)
    sums, counts = np.zeros(len(numbers)), np.zeros(len(numbers), np.int64)
    of_gallery, of_queries = (_group_totals(x, group) for x in (gallery, queries))
    for other in (values - step, values + step):
        is_there = np.isclose(other[:, None], values)
        place = np.argmax(is_there, axis=1)[group]
        exists = np.any(is_there, axis=1)[group]
        both = _dot(queries, of_gallery[place]) + _dot(gallery, of_queries[place])
        sums += np.where(exists, both / 2, 0.0)
        counts += np.where(exists, sizes[place], 0)
    return sums, counts


def _image_scores(
    sums: np.ndarray, counts: np.ndarray, where: np.ndarray
) -> QueryScores:
    """Returns scores of all records, see `SharedAttributes`."""
    mean = sums.sum() / counts.sum()
    values, weights = np.zeros(len(where)), np.zeros(len(where))
    values[where] = np.where(counts > 0, 2 * sums - mean * counts, 0.0)
    weights[where] = counts
    return QueryScores(values, weights)


def _read_numbers(records: Records, name: str) -> np.ndarray:
    """Returns the labels of a level or column as numbers, `[N]` float64.

    Raises:
      DataError: The records have no label of the name, or one record lacks it.
      ValueError: A label is no number.
    """
    labels: NamedLabels = find_labels(records, name, f"{_SECTION}.steps")
    try:
        numbers = np.array([float(x or "nan") for x in labels.names])
    except ValueError as error:
        raise ValueError(
            f"steps names {name}, whose labels are no numbers, e.g. "
            f"{labels.names[0]!r}: leave it out."
        ) from error
    return numbers[labels.values]


def _check_step(name: str, step: float) -> float:
    """Returns a step.

    Raises:
      ValueError: It is not a finite number above 0.
    """
    is_number = isinstance(step, int | float) and not isinstance(step, bool)
    if not is_number or not 0 < step < np.inf:
        raise ValueError(f"steps must be numbers above 0, got {step!r} for {name}.")
    return float(step)
