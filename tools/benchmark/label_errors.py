"""Share of planted wrong labels that `deeprank label-errors` ranks first.

One label in twenty is replaced, by any other or by one that shares all coarser levels.
The model must not have been trained on the split. Precision is that among as many
images as labels were replaced, AUROC that of the margins of all images.
"""

import argparse

import numpy as np
import scipy.stats
from sklearn.metrics import roc_auc_score

from deeprank_jax.inference import bulk
from deeprank_jax.search.label_margins import label_margins
from tools.benchmark import dataset

_SHARE, _SEEDS = 0.05, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    dataset.add_arguments(parser)
    parser.add_argument(
        "--split", default="test", help="split of the images (default: %(default)s)"
    )


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns the means over the seeds, for each way of planting."""
    model, splits = dataset.open_dataset(options)
    records = splits[options.split]
    rows, indices = bulk.embed_records(model, records)
    return measure_planted(rows, records.labels[indices])


def measure_planted(rows: np.ndarray, levels: np.ndarray) -> dict[str, float]:
    """Returns precision and AUROC for wrong labels that are planted.

    Args:
      rows: `[N, D]` embeddings.
      levels: `[N, L]` ints, labels from coarse to fine.
    """
    values = {"images": float(len(rows))}
    parents = np.zeros(len(levels), int) if levels.shape[1] < 2 else levels[:, -2]
    for name, groups in (
        ("any_label", np.zeros_like(parents)),
        ("same_parent", parents),
    ):
        scores = [
            _measure_once(rows, levels[:, -1], groups, seed) for seed in range(_SEEDS)
        ]
        precision, auroc = np.mean(scores, axis=0)
        values |= {f"{name}_precision": precision, f"{name}_auroc": auroc}
    return {name: float(value) for name, value in values.items()}


def _measure_once(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[float, float]:
    """Returns precision and AUROC for one draw of the wrong labels."""
    planted, is_wrong = plant(labels, groups, seed)
    margins = label_margins(rows, planted).margins
    # Images alone with their label have no margin, and come last.
    ranks = scipy.stats.rankdata(np.nan_to_num(margins, nan=-np.inf))
    first = np.argsort(-ranks, kind="stable")[: int(is_wrong.sum())]
    return float(is_wrong[first].mean()), float(roc_auc_score(is_wrong, ranks))


def plant(
    labels: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels of which some are wrong, and `[N]` bool, True for these.

    Args:
      labels: `[N]` ints.
      groups: `[N]` ints; a label is replaced by another of its group.
      seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    planted, is_wrong = labels.copy(), np.zeros(len(labels), bool)
    num_wrong = round(_SHARE * len(labels))
    for i in rng.permutation(len(labels)):
        others = np.unique(labels[groups == groups[i]])
        others = others[others != labels[i]]
        if len(others) and is_wrong.sum() < num_wrong:
            planted[i], is_wrong[i] = rng.choice(others), True
    return planted, is_wrong
