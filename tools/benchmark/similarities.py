"""Retrieval re-ranked by learned similarities of a model's frozen embeddings.

  deeprank embed tfds:emoji/train --model=MODEL --out=train.parquet
  deeprank embed tfds:emoji/test --model=MODEL --out=test.parquet
  python -m tools.benchmark similarities --train=train.parquet --test=test.parquet

Each similarity learns from the first table, and puts the nearest of each query of the
second, leave-one-out, in order. All train on the same pairs, with three seeds.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deeprank_jax import similarities
from deeprank_jax.errors import DataError
from deeprank_jax.evaluation import bootstrap
from deeprank_jax.evaluation.average_precision import average_precision
from deeprank_jax.evaluation.paired_intervals import compare_arms, format_comparison
from deeprank_jax.evaluation.scores import QueryScores, mean_over
from deeprank_jax.inference.embedding_table import read_table
from deeprank_jax.search.neighbors import nearest_neighbors
from deeprank_jax.similarities.base import Similarity, unit_rows

METRICS = ("map_at_r", "recall_at_1")
# Queries whose candidates are scored at once.
_BLOCK = 100
# System that the others are compared with, and the pair that the question is about.
_FIRST = "cosine"
_LEARNED = ("simnet_stage_3", "projected_cosine_stage_3")

Scores = Mapping[str, QueryScores]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    for name in ("train", "test"):
        parser.add_argument(
            f"--{name}", metavar="FILE", required=True,
            help=f"table of the {name} split, written by `deeprank embed`",
        )  # fmt: skip
    for name, default in (
        ("width", 1024), ("random_steps", 5000), ("pair_steps", 2000),
        ("hard_steps", 1000),
    ):  # fmt: skip
        parser.add_argument(
            f"--{name}", metavar="N", type=int, default=default,
            help="option of the similarities (default: %(default)s)",
        )  # fmt: skip
    parser.add_argument(
        "--num", metavar="N", type=int, default=100,
        help="number of candidates of a query (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", metavar="N", type=int, default=3,
        help="number of seeds, at least 2 (default: %(default)s)",
    )  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns the metrics of all systems and the differences of interest.

    Args:
      options: Values of `add_arguments`.

    Raises:
      DataError: The tables are of two models, or cannot be used.
    """
    _, labels, train, model = read_table(options.train)
    _, test_labels, test, test_model = read_table(options.test)
    if model != test_model:
        raise DataError(
            f"{options.train} is of the model {model}, {options.test} of "
            f"{test_model}: embed both by one model."
        )
    steps = {
        name: getattr(options, name)
        for name in ("random_steps", "pair_steps", "hard_steps")
    }
    widths = {"width": options.width}
    kinds = {
        "linear": {**steps, "random_steps": 0},
        "bilinear": {},
        "projected_cosine": steps | widths,
        "simnet": steps | widths,
    }
    gallery = Gallery(test, np.array(test_labels), options.num)
    systems: dict[str, list[Scores]] = {_FIRST: [gallery.rank(None)] * options.seeds}
    errors = []
    for seed in range(options.seeds):
        for kind, kind_options in kinds.items():
            similarity = similarities.create_learned(kind, kind_options)
            stages = similarity.stages(train, np.array(labels), seed=seed)
            for name, metrics in _name_stages(kind, stages):
                if name == "simnet_stage_1":
                    errors.append(metrics["random_error"])
                if not name.endswith("_stage_1"):
                    systems.setdefault(name, []).append(gallery.rank(similarity))
                    _print_line(name, seed, systems[name][-1])
    return summarize(systems, gallery.classes) | {"random_error": max(errors)}


class Gallery:
    """Images that are queries and gallery, and the candidates of each query."""

    def __init__(self, embeddings: np.ndarray, labels: np.ndarray, num: int):
        """Finds the candidates, the nearest by the cosine.

        Args:
          embeddings: `[N, D]` floats.
          labels: `[N]` texts, the class of each.
          num: Number of candidates of a query; fewer if there are fewer others.

        Raises:
          DataError: A class has more images than there are candidates.
        """
        self._rows = unit_rows(embeddings)
        _, self.classes, sizes = np.unique(
            labels, return_inverse=True, return_counts=True
        )
        self._num_relevant = sizes[self.classes] - 1
        num = min(num, len(labels) - 1)
        if self._num_relevant.max() > num:
            raise DataError(
                f"A class has {self._num_relevant.max() + 1} images, and MAP@R looks "
                f"at as many but one: raise --num, now {num}."
            )
        _, self._candidates = nearest_neighbors(
            self._rows, self._rows, num, exclude_self=True
        )

    def rank(self, similarity: Similarity | None) -> Scores:
        """Returns the scores of each query, by metric.

        Args:
          similarity: Similarity that puts the candidates in order; None for the order
            of the cosine.
        """
        candidates = self._candidates
        if similarity is not None:
            order = np.argsort(-self._score(similarity), axis=1, kind="stable")
            candidates = np.take_along_axis(candidates, order, axis=1)
        hits = self.classes[candidates] == self.classes[:, None]
        where = self._num_relevant > 0
        precision = average_precision(hits, self._num_relevant)
        return {
            "map_at_r": mean_over(precision, where),
            "recall_at_1": mean_over(hits[:, 0].astype(float), where),
        }

    def _score(self, similarity: Similarity) -> np.ndarray:
        """Returns the similarity of each query and candidate, `[N, num]`."""
        scores = np.empty(self._candidates.shape)
        for start in range(0, len(scores), _BLOCK):
            part = slice(start, start + _BLOCK)
            rows = self._rows[part]
            queries = np.repeat(rows, scores.shape[1], axis=0)
            gallery = self._rows[self._candidates[part].reshape(-1)]
            scores[part] = similarity(queries, gallery).reshape(len(rows), -1)
        return -scores if similarity.is_distance else scores


def summarize(
    systems: Mapping[str, Sequence[Scores]], classes: np.ndarray
) -> dict[str, float]:
    """Prints tables, and returns means and differences.

    The interval of a difference to the cosine is over classes of queries, with the
    first seed; that of SimNet and the projected cosine is over seeds.

    Args:
      systems: Scores of each seed, by system; the cosine is the first.
      classes: `[Q]` int, class of each query.
    """
    result: dict[str, float] = {}
    comparisons = {}
    for metric in METRICS:
        values = {
            name: [seed[metric].value for seed in seeds]
            for name, seeds in systems.items()
        }
        comparisons[metric] = compare_arms(values, [_LEARNED])
        result |= {f"{metric}_{x}": y for x, y in comparisons[metric]["mean"].items()}
        over_seeds = comparisons[metric]["difference"][" - ".join(_LEARNED)]
        for end, value in over_seeds.items():
            result[f"{metric}_simnet_minus_projected_{end}"] = value
        cosine = systems[_FIRST][0][metric]
        for name, seeds in systems.items():
            if name != _FIRST:
                gain = bootstrap.difference(seeds[0][metric], cosine, groups=classes)
                prefix = f"{metric}_{name}_minus_cosine"
                result |= {f"{prefix}_low": gain.low, f"{prefix}_high": gain.high}
    print(format_comparison(comparisons))
    return result


def _name_stages(
    kind: str, stages: Iterator[dict[str, float]]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields the name of the system after each stage, and the stage's metrics."""
    for number, metrics in enumerate(stages, 1):
        yield kind if kind == "bilinear" else f"{kind}_stage_{number}", metrics


def _print_line(name: str, seed: int, scores: Scores) -> None:
    numbers = ", ".join(f"{metric} {x.value:.4f}" for metric, x in scores.items())
    print(f"{name}, seed {seed}: {numbers}", flush=True)
