"""How good the embedding is: the model's numbers beside those of two baselines.

A number means something only beside another: the same network before training, the
trunk alone if it was trained before, and plain 16x16 pixels go through the same
evaluators.
"""

from collections.abc import Callable
import functools
import pathlib

from absl import logging
import ml_collections
import numpy as np
import tqdm

from deeprank_jax import evaluation as evaluation_lib
from deeprank_jax.data import cache_dir
from deeprank_jax.data.rated_triplets import RatedTriplets
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import processes
from deeprank_jax.relevance import Relevance, create_relevance
from deeprank_jax.sampling import (
    NoTripletError,
    create_candidates,
    sample_evaluation_triplets,
)

# {evaluator: {metric: value}}
Values = dict[str, dict[str, float]]


class SplitEvaluation:
    """A split, its images and all that is measured on it."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        name: str,
        records: Records,
        reader: ImageReader,
        relevance: Relevance,
        workdir: pathlib.Path,
        *,
        rated: RatedTriplets | None = None,
    ):
        """Creates the evaluators, and the triplets if they are not there yet.

        The evaluator of triplets is left out, with a warning, if there are none.

        Args:
          config: the whole configuration.
          name: of the split.
          records: of the split.
          reader: their images.
          relevance: how similar two records should be.
          workdir: keeps the evaluation triplets, so that they are drawn once.
          rated: what people said of the split; candidates are those of the drawn
            triplets, the other images of the anchor's category.
        """
        self.name = name
        self.rated = rated
        self.records = records
        self._reader = reader
        self._batch_size = config.evaluation.batch_size
        gains = tuple(config.evaluation.gains)
        graded = create_relevance("hierarchy", levels=gains) if gains else relevance
        self._graded = graded
        self._attributes = records.labels if gains else records.attributes
        self.evaluators: dict[str, evaluation_lib.Evaluator] = {
            "retrieval": evaluation_lib.Retrieval(
                records.labels,
                graded,
                attributes=self._attributes,
                **config.evaluation.evaluators.retrieval,
            )
        }
        triplets = evaluation_triplets(
            config, records, relevance, workdir / "triplets" / f"{name}.csv"
        )
        people = rated.indices if rated is not None else None
        for evaluator, indices in (("triplets", triplets), ("rated", people)):
            if indices is not None and len(indices):
                self.evaluators[evaluator] = evaluation_lib.Triplets(
                    records.labels,
                    indices,
                    category_level=config.triplets.category_level,
                    k=config.evaluation.evaluators.triplets.k,
                )

    @property
    def groups(self) -> np.ndarray:
        """`[N]` int, the class of each record: what intervals draw anew."""
        return self.records.labels[:, -1]

    def add_hierarchical_ap(self) -> None:
        """Measures hierarchical AP as well, which takes longer than all the others."""
        self.evaluators["hierarchical"] = evaluation_lib.HierarchicalAP(
            self.records.labels, self._graded, attributes=self._attributes
        )

    def embed(
        self,
        embed_fn: Callable[[np.ndarray], np.ndarray],
        description: str,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings `[N, D]` and which records could be read, `[N]`.

        Each process embeds its share, and all get the whole.

        Args:
          embed_fn: maps uint8 images `[B, H, W, 3]` to embeddings `[B, D]`.
          description: for the progress bar.
          check: is called for each batch, and may raise to end it early.
        """

        def checked(images: np.ndarray) -> np.ndarray:
            check()
            embeddings = embed_fn(images)
            if not np.isfinite(embeddings).all():
                logging.warning(
                    "%s: some embeddings are not finite; their records are left out, "
                    "and the numbers speak of the others.",
                    description,
                )
            return embeddings

        start, stop = processes.own_share(len(self.records))
        progress = functools.partial(
            tqdm.tqdm,
            desc=description,
            total=-(-(stop - start) // self._batch_size),
            unit="batch",
            leave=False,
            disable=not processes.is_first(),
        )
        batches = self._reader.batches(self._batch_size, start, stop)
        embeddings, ok = evaluation_lib.embed_split(
            checked, batches, len(self.records), progress=progress
        )
        return processes.gather_shares(embeddings), processes.gather_shares(ok)

    def measure(self, embeddings: np.ndarray, ok: np.ndarray) -> Values:
        """Returns every metric of every evaluator."""
        return {
            name: dict(evaluator.run(embeddings, ok))
            for name, evaluator in self.evaluators.items()
        }

    def scores(
        self,
        embeddings: np.ndarray,
        ok: np.ndarray,
        queries: np.ndarray | None = None,
    ) -> dict[str, evaluation_lib.QueryScores]:
        """Returns every metric query by query, as `"evaluator/metric"`.

        Args:
          embeddings: `[N, D]` of the split's records.
          ok: `[N]` bool, which could be read.
          queries: as of `Evaluator.measure`.
        """
        return {
            f"{name}/{metric}": found
            for name, evaluator in self.evaluators.items()
            for metric, found in evaluator.measure(
                embeddings, ok, queries=queries
            ).items()
        }


def flatten(values: Values) -> dict[str, float]:
    """Returns `{"evaluator/metric": value}`, as metrics.jsonl has it."""
    return {
        f"{evaluator}/{metric}": value
        for evaluator, metrics in values.items()
        for metric, value in metrics.items()
    }


def evaluation_triplets(
    config: ml_collections.ConfigDict,
    records: Records,
    relevance: Relevance,
    path: pathlib.Path,
) -> np.ndarray | None:
    """Returns the triplets of the file, drawn if it is not there; None without any."""
    options = {
        "num": config.evaluation.evaluators.triplets.num,
        "seed": config.seed,
        "mode": "importance",
        "positive_cap": config.triplets.positive_cap,
        "min_relevance_gap": config.triplets.min_relevance_gap,
        "out_of_class": config.evaluation.evaluators.triplets.out_of_class,
    }
    level = config.triplets.category_level
    cache = cache_dir.cache_dir(config)
    candidates = create_candidates(records, relevance, level, cache=cache)
    described = {
        **options,
        "category_level": level,
        "sum_of_totals": candidates.sum_of_totals,
    }
    drawn = " ".join(f"{name}={value}" for name, value in described.items())
    drawn += f" relevance={config.relevance.to_json_best_effort(sort_keys=True)}"
    if path.exists():
        return evaluation_lib.load_triplets(path, records.fingerprint, drawn)
    try:
        triplets = sample_evaluation_triplets(candidates, relevance, **options)
    except NoTripletError as error:
        logging.warning(
            "%s: evaluated without triplets, because there are none. %s",
            records.name,
            error,
        )
        return None
    evaluation_lib.save_triplets(path, triplets, records.fingerprint, drawn)
    return triplets


def evaluation_metrics(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the names of the metrics that the configured evaluators measure."""
    evaluators = config.evaluation.evaluators
    ks, k = evaluators.retrieval.ks, evaluators.triplets.k
    metrics = [
        *(f"retrieval/{name}" for name in ("map@r", "r_precision", "mrr")),
        *(f"retrieval/{name}@{k}" for name in ("recall", "ndcg") for k in ks),
        *(f"retrieval/precision@{k}" for k in ks if k > 1),
        "triplets/precision",
        "triplets/precision_in_class",
        f"triplets/score_at_{k}_share",
    ]
    if "rated_triplets" in evaluators:
        metrics += ["rated/precision", f"rated/score_at_{k}_share"]
    return metrics
