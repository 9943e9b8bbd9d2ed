"""Recognition among queries without an answer, with and without distractors.

Classes of the test split are looked for, except those of one category, which stand for
images that none asks for. Of each class some images are indexed, the others are
queries, and so are all images of that category. Distractors are the images of the same
category in the training split. A query's prediction is the class of its best hit.
"""

import argparse

import numpy as np
import scipy.stats

from deeprank_jax.errors import DataError
from deeprank_jax.evaluation.global_average_precision import global_average_precision
from deeprank_jax.inference import bulk
from deeprank_jax.similarities import OutOfDomain
from tools.benchmark import dataset

_NUM_INDEXED, _NUM_CANDIDATES, _NUM_RESAMPLED = 4, 20, 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    dataset.add_arguments(parser)
    parser.add_argument(
        "--category", default="Symbols",
        help="name of the coarsest label that is not looked for (default: %(default)s)",
    )  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns the metrics of both confidences, and their difference with interval."""
    model, splits = dataset.open_dataset(options)
    embedded = {}
    for name in ("train", "test"):
        records = splits[name]
        names = np.array([records.label_name(i, 0) for i in range(len(records))])
        if options.category not in names:
            raise DataError(
                f"{records.name} has no category {options.category!r}; it has "
                f"{', '.join(sorted(set(names)))}."
            )
        rows, indices = bulk.embed_records(model, records)
        is_other = names[indices] == options.category
        embedded[name] = rows, records.labels[indices, -1], is_other
    rows, _, is_other = embedded["train"]
    return measure_embedded(rows[is_other], *embedded["test"])


def measure_embedded(
    distractors: np.ndarray, rows: np.ndarray, labels: np.ndarray, is_other: np.ndarray
) -> dict[str, float]:
    """Returns the metrics of both confidences, and their difference with interval.

    Args:
      distractors: `[M, D]` embeddings.
      rows: `[N, D]` embeddings, of length 1.
      labels: `[N]` ints, classes.
      is_other: `[N]` bool, True for images that are not looked for.
    """
    numbers = _number_within(labels)
    indexed = np.flatnonzero(~is_other & (numbers < _NUM_INDEXED))
    queries = np.flatnonzero(is_other | (numbers >= _NUM_INDEXED))
    similarity = OutOfDomain()
    list(similarity.stages(distractors, np.array([])))
    cosines = rows[queries] @ rows[indexed].T
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :_NUM_CANDIDATES]
    scores = similarity(
        np.repeat(rows[queries], _NUM_CANDIDATES, axis=0),
        rows[indexed[near.reshape(-1)]],
    ).reshape(near.shape)
    has_answer = ~is_other[queries]
    systems = {}
    for name, values in (
        ("cosine", np.take_along_axis(cosines, near, axis=1)),
        ("less_distractors", scores),
    ):
        best = near[np.arange(len(near)), values.argmax(axis=1)]
        is_correct = has_answer & (labels[indexed[best]] == labels[queries])
        systems[name] = values.max(axis=1), is_correct
    return {
        "queries": float(len(queries)),
        "queries_without_answer": float(is_other.sum()),
        "distractors": float(len(distractors)),
        **_compare(systems, has_answer),
    }


def _compare(
    systems: dict[str, tuple[np.ndarray, np.ndarray]], has_answer: np.ndarray
) -> dict[str, float]:
    """Returns GAP, AUROC and accuracy of two systems, and the difference in GAP."""
    values = {}
    for name, (confidences, is_correct) in systems.items():
        ranks = scipy.stats.rankdata(confidences)
        num = int(has_answer.sum())
        better = ranks[has_answer].sum() - num * (num + 1) / 2
        values |= {
            f"{name}_gap": global_average_precision(confidences, is_correct, num),
            f"{name}_auroc": float(better / (num * (len(ranks) - num))),
            f"{name}_accuracy": float(is_correct.sum() / num),
        }
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(_NUM_RESAMPLED):
        sample = rng.integers(0, len(has_answer), len(has_answer))
        one, other = (
            global_average_precision(
                c[sample], ok[sample], int(has_answer[sample].sum())
            )
            for c, ok in systems.values()
        )
        differences.append(other - one)
    low, high = np.quantile(differences, (0.025, 0.975))
    first, second = (values[f"{name}_gap"] for name in systems)
    values |= {"gap_difference": second - first}
    return values | {"difference_low": float(low), "difference_high": float(high)}


def _number_within(labels: np.ndarray) -> np.ndarray:
    """Returns the number of each image within its class, from 0, `[N]`."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    lengths = np.diff(starts, append=len(ordered))
    numbers = np.empty(len(labels), int)
    numbers[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return numbers
