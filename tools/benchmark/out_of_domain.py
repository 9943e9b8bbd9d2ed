"""Recognition among queries without an answer, with and without distractors.

Classes of the test split are looked for, except those of one category, which stand for
images that none asks for. Of each class some images are indexed, the others are
queries, and so are all images of that category. Distractors are the images of the same
category in the training split. A query's prediction is the class of its best hit.
"""

import argparse

import numpy as np
from sklearn.metrics import roc_auc_score

from deeprank_jax.errors import DataError
from deeprank_jax.evaluation.global_average_precision import global_average_precision
from deeprank_jax.inference import bulk
from deeprank_jax.similarities import OutOfDomain
from tools.benchmark import dataset

_NUM_INDEXED, _NUM_CANDIDATES, _NUM_RESAMPLED = 4, 20, 1000

# Confidences `[Q]` and whether each prediction is right, `[Q]` bool.
System = tuple[np.ndarray, np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    dataset.add_arguments(parser)
    parser.add_argument(
        "--category", default="Symbols",
        help="name of the coarsest label that is not looked for (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--split", default="test",
        help="split of index and queries (default: %(default)s)",
    )  # fmt: skip
    for name in ("query_weight", "indexed_weight"):
        parser.add_argument(
            f"--{name}", type=float, default=getattr(OutOfDomain, name),
            help="option of the similarity (default: %(default)s)",
        )  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns the metrics of both confidences, and their difference with interval."""
    model, splits = dataset.open_dataset(options)
    embedded = {}
    for name in ("train", options.split):
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
    similarity = OutOfDomain(
        query_weight=options.query_weight, indexed_weight=options.indexed_weight
    )
    return measure_embedded(similarity, rows[is_other], *embedded[options.split])


def measure_embedded(
    similarity: OutOfDomain,
    distractors: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    is_other: np.ndarray,
) -> dict[str, float]:
    """Returns the metrics of both confidences, and their difference with interval.

    Args:
      similarity: Similarity that is trained on the distractors.
      distractors: `[M, D]` embeddings.
      rows: `[N, D]` embeddings, of length 1.
      labels: `[N]` ints, classes.
      is_other: `[N]` bool, True for images that are not looked for.
    """
    numbers = _number_within(labels)
    indexed = np.flatnonzero(~is_other & (numbers < _NUM_INDEXED))
    queries = np.flatnonzero(is_other | (numbers >= _NUM_INDEXED))
    list(similarity.stages(distractors, np.array([])))
    cosines = rows[queries] @ rows[indexed].T
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :_NUM_CANDIDATES]
    scores = similarity(
        np.repeat(rows[queries], near.shape[1], axis=0),
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
        **_compare(systems, has_answer, labels[queries]),
    }


def _compare(
    systems: dict[str, System], has_answer: np.ndarray, classes: np.ndarray
) -> dict[str, float]:
    """Returns GAP, AUROC and accuracy of two systems, and the difference in GAP.

    Its interval, of 95 %, is over classes, whose queries are alike.

    Args:
      systems: Predictions by name; the first is compared with.
      has_answer: `[Q]` bool, True for a query whose class is indexed.
      classes: `[Q]` ints, classes of the queries.
    """
    values = {}
    for name, (confidences, is_correct) in systems.items():
        num = int(has_answer.sum())
        values |= {
            f"{name}_gap": global_average_precision(confidences, is_correct, num),
            f"{name}_auroc": float(roc_auc_score(has_answer, confidences)),
            f"{name}_accuracy": float(is_correct.sum() / num),
        }
    members = [np.flatnonzero(classes == x) for x in np.unique(classes)]
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(_NUM_RESAMPLED):
        numbers = rng.integers(0, len(members), len(members))
        sample = np.concatenate([members[number] for number in numbers])
        num = int(has_answer[sample].sum())
        if num:
            one, other = (
                global_average_precision(confidences[sample], is_correct[sample], num)
                for confidences, is_correct in systems.values()
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
