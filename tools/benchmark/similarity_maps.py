"""Fall of the cosine where the hottest quarter of a heat map is hidden.

Each pair has one label. Beside the hottest quarter of the second image, a quarter by
the map of another pair, which shows what hiding anything there does, and the coldest.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from deeprank_jax.cli import arguments
from deeprank_jax.inference.images import prepare
from deeprank_jax.inference.similarity_maps import Embedder, find_maps, hide
from deeprank_jax.progress import Bar
from deeprank_jax.similarities.base import unit_rows
from tools.benchmark import dataset

_SHARE = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    dataset.add_arguments(parser)
    parser.add_argument(
        "--split", default="test", help="split of the images (default: %(default)s)"
    )
    parser.add_argument(
        "--num_pairs",
        type=arguments.at_least(2),
        default=100,
        help="number of pairs of images (default: %(default)s)",
    )


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns the mean falls over pairs of a split, drawn with a fixed seed."""
    model, splits = dataset.open_dataset(options)
    records = splits[options.split]
    rng = np.random.default_rng(0)
    labels = records.labels[:, -1]
    pairs = []
    for index in rng.permutation(len(records)):
        same = np.flatnonzero(labels == labels[index])
        same = same[same != index]
        if len(same) and len(pairs) < options.num_pairs:
            pairs.append((int(index), int(rng.choice(same))))
    load = lambda i: prepare(records.read(i), records.describe(i), model.preprocessing)
    return measure_pairs(model, [(load(one), load(other)) for one, other in pairs])


def measure_pairs(
    model: Embedder, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """Returns the mean falls of the cosine, and how often the hottest falls more.

    Args:
      model: Model that embeds.
      pairs: Two images each, uint8 `[S, S, 3]`, of two pairs or more.
    """
    silent = lambda done, total, description: None
    maps = [
        find_maps(model, one, [other], progress=silent)[0]
        for one, other in Bar(pairs, desc="maps", unit="pair")
    ]
    falls = []
    for i, (one, other) in enumerate(pairs):
        values, elsewhere = maps[i].other, maps[i - 1].other
        whole = np.ones(values.shape, bool)
        masks = [_hottest(x) for x in (values, elsewhere, -values)]
        hidden = [hide(other, mask, whole) for mask in masks]
        rows = unit_rows(model.embed_prepared(np.stack([one, *hidden])))
        falls.append(maps[i].cosine - rows[1:] @ rows[0])
    hottest, by_another, coldest = np.array(falls).T
    return {
        "pairs": float(len(pairs)),
        "cosine": float(np.mean([x.cosine for x in maps])),
        "fall_hottest": float(hottest.mean()),
        "fall_by_another_map": float(by_another.mean()),
        "fall_coldest": float(coldest.mean()),
        "hottest_falls_more_than_by_another_map": float(np.mean(hottest > by_another)),
    }


def _hottest(values: np.ndarray) -> np.ndarray:
    """Returns 1 for the quarter of the pixels with the largest values, else 0."""
    ranks = values.ravel().argsort(kind="stable").argsort(kind="stable")
    is_hot = ranks >= (1 - _SHARE) * values.size
    return is_hot.reshape(values.shape).astype(float)
