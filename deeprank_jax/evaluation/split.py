"""Evaluation of a split: its images, its evaluators and their metrics."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib

from absl import logging
import ml_collections
import numpy as np

from deeprank_jax import evaluation as evaluation_lib
from deeprank_jax.data import cache_dir
from deeprank_jax.data.rated_triplets import RatedTriplets, read_rated_splits
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import processes
from deeprank_jax.errors import DataError
from deeprank_jax.evaluation import EVALUATORS, Evaluator, NothingToMeasureError
from deeprank_jax.evaluation.matrices import Matrix
from deeprank_jax.evaluation.rankings import Ranking
from deeprank_jax.progress import Bar
from deeprank_jax.relevance import Relevance, create_relevance
from deeprank_jax.sampling.pair_sampler import ListedPairs

# {evaluator: {metric: value}}
Values = dict[str, dict[str, float]]
# Function from a file to the rated triplets of each split.
ReadRatings = Callable[[str], Mapping[str, RatedTriplets]]
# Function from a file to its pairs of a split.
ReadPairs = Callable[[str], ListedPairs]
# Embeddings of changed images and `ok`, by evaluator and title of the change.
Changed = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """Metrics of one system on a split, by `"evaluator/metric"`.

    Attributes:
      scores: Scores per query, of metrics that are sums or means over queries.
      values: Values of all other metrics.
      ranking: Nearest neighbours of each query; None if they were not requested or
        there is no retrieval evaluator.
    """

    scores: dict[str, evaluation_lib.QueryScores]
    values: dict[str, float]
    ranking: Ranking | None = None


class SplitEvaluation:
    """A split, its images and its evaluators."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        name: str,
        records: Records,
        reader: ImageReader,
        relevance: Relevance,
        workdir: pathlib.Path,
        *,
        evaluators: Mapping[str, Mapping[str, object]] | None = None,
        read_ratings: ReadRatings | None = None,
        read_pairs: ReadPairs | None = None,
    ):
        """Creates the evaluators, and the triplets if they are not there yet.

        An evaluator that has nothing to measure is left out, with a warning.

        Args:
          config: Whole config.
          name: Name of the split.
          records: Records of the split.
          reader: Reader of their images.
          relevance: Relevance of two records.
          workdir: Folder of the run, which stores the evaluation triplets.
          evaluators: Options of each evaluator; None for
            `config.evaluation.evaluators`.
          read_ratings: Reader of rated triplets; None for files with triplets of this
            split.
          read_pairs: Reader of the pairs of this split; None leaves out all pairs with
            an image that is not in it.
        """
        self.name = name
        self.records = records
        self._reader = reader
        self._batch_size = config.evaluation.batch_size
        context = create_context(config, name, records, relevance, workdir)
        if read_ratings is not None:
            context["read_ratings"] = read_ratings
        if read_pairs is not None:
            context["read_pairs"] = read_pairs
        if evaluators is None:
            evaluators = config.evaluation.evaluators.to_dict()
        self.evaluators = create_evaluators(evaluators, context)

    @property
    def groups(self) -> np.ndarray:
        """`[N]` int, class of each record; intervals are over classes."""
        return self.records.labels[:, -1]

    def embed(
        self,
        embed_fn: Callable[[np.ndarray], np.ndarray],
        description: str,
        *,
        check: Callable[[], None] = lambda: None,
        must_be_finite: bool = False,
        change: evaluation_lib.Change | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings `[N, D]` and `ok [N]` bool, the records with one.

        Each process embeds its share, and all get the whole.

        Args:
          embed_fn: Function from uint8 images `[B, H, W, 3]` to embeddings `[B, D]`.
          description: Title of the progress bar.
          check: Function called for each batch, which may raise to end early.
          must_be_finite: True to refuse a network none of whose embeddings is finite;
            else records without one are only left out.
          change: Change of the images before they are embedded; None for none.

        Raises:
          DataError: No embedding of a batch is finite, and it must be.
        """

        def checked(images: np.ndarray) -> np.ndarray:
            check()
            embeddings = embed_fn(images)
            _check_finite(embeddings, description, must_be_finite=must_be_finite)
            return embeddings

        start, stop = processes.own_share(len(self.records))
        progress = functools.partial(
            Bar,
            desc=description,
            total=-(-(stop - start) // self._batch_size),
            unit="batch",
            leave=False,
            shown=processes.is_first(),
        )
        batches = self._reader.batches(self._batch_size, start, stop)
        if change is not None:
            batches = (
                {**x, "images": change(x["images"], x["indices"])} for x in batches
            )
        with processes.interrupted_together():
            embeddings, ok = evaluation_lib.embed_split(
                checked, batches, len(self.records), progress=progress
            )
        return processes.gather_shares(embeddings), processes.gather_shares(ok)

    def embed_changed(
        self,
        embed_fn: Callable[[np.ndarray], np.ndarray],
        description: str,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Returns embeddings and `ok` of the images as the evaluators change them.

        Args:
          embed_fn: Function as in `embed`, as the other arguments.
          description: Title of the progress bars.
          check: Function called for each batch.
        """
        return {
            name: {
                title: self.embed(
                    embed_fn, f"{description}, {title}", check=check, change=change
                )
                for title, change in evaluator.changes().items()
            }
            for name, evaluator in self.evaluators.items()
            if isinstance(evaluator, evaluation_lib.ChangedQueryEvaluator)
        }

    def measure(
        self, embeddings: np.ndarray, ok: np.ndarray, changed: Changed | None = None
    ) -> Values:
        """Returns every metric of every evaluator; see `measure_queries`."""
        values: Values = {}
        for name, evaluator in self.evaluators.items():
            if isinstance(evaluator, evaluation_lib.ChangedQueryEvaluator):
                scores = {}
                if changed:
                    scores = evaluator.measure_changed(embeddings, ok, changed[name])
                values[name] = {metric: x.value for metric, x in scores.items()}
            else:
                values[name] = dict(evaluator.run(embeddings, ok))
        return values

    def measure_queries(
        self,
        embeddings: np.ndarray,
        ok: np.ndarray,
        queries: np.ndarray | None = None,
        *,
        num_neighbors: int = 0,
        changed: Changed | None = None,
    ) -> Measurement:
        """Returns every metric, query by query where it is defined per query.

        Args:
          embeddings: `[N, D]` float, one row per record of the split.
          ok: `[N]` bool, the records that take part.
          queries: Optional `[N, D]` float, see `Evaluator.run`.
          num_neighbors: Number of nearest neighbours of each query to return; 0 returns
            no ranking.
          changed: Embeddings of changed images from `embed_changed`; None leaves their
            metrics out.
        """
        scores, values, ranking = {}, {}, None
        for name, evaluator in self.evaluators.items():
            per_query: Mapping[str, evaluation_lib.QueryScores] = {}
            if num_neighbors and isinstance(evaluator, evaluation_lib.Retrieval):
                per_query, ranking = evaluator.rank(
                    embeddings, ok, queries=queries, num_neighbors=num_neighbors
                )
            elif isinstance(evaluator, evaluation_lib.ChangedQueryEvaluator):
                if changed:
                    per_query = evaluator.measure_changed(embeddings, ok, changed[name])
            elif isinstance(evaluator, evaluation_lib.QueryEvaluator):
                per_query = evaluator.measure(embeddings, ok, queries=queries)
            else:
                metrics = evaluator.run(embeddings, ok, queries=queries)
                values |= {f"{name}/{metric}": value for metric, value in metrics}
            scores |= {f"{name}/{metric}": x for metric, x in per_query.items()}
        return Measurement(scores=scores, values=values, ranking=ranking)

    def matrices(self, embeddings: np.ndarray, ok: np.ndarray) -> list[Matrix]:
        """Returns the tables of all evaluators that a report draws.

        Args:
          embeddings: `[N, D]` float, one row per record of the split.
          ok: `[N]` bool, the records that take part.
        """
        return [
            matrix
            for evaluator in self.evaluators.values()
            for matrix in evaluator.matrices(embeddings, ok)
        ]


def flatten(values: Values) -> dict[str, float]:
    """Returns `{"evaluator/metric": value}`, as in metrics.jsonl."""
    return {
        f"{evaluator}/{metric}": value
        for evaluator, metrics in values.items()
        for metric, value in metrics.items()
    }


def create_evaluators(
    evaluators: Mapping[str, Mapping[str, object]], context: Mapping[str, object]
) -> dict[str, Evaluator]:
    """Creates evaluators, leaving out those that have nothing to measure.

    Args:
      evaluators: Options of each evaluator.
      context: Values of the parameters named in `evaluation.CONTEXT`.

    Returns:
      The evaluators by the first part of their metrics' names.

    Raises:
      ConfigError: An evaluator or one of its options does not exist, or an option is
        out of range.
    """
    created = {}
    for name, options in evaluators.items():
        try:
            evaluator = EVALUATORS.create({"name": name, **options}, **context)
        except NothingToMeasureError as error:
            split = context["split"]
            logging.warning("%s: evaluated without %s. %s", split, name, error)
            continue
        created[evaluator.prefix or name] = evaluator
    return created


def create_context(
    config: ml_collections.ConfigDict,
    split: str,
    records: Records,
    relevance: Relevance,
    workdir: pathlib.Path,
) -> dict[str, object]:
    """Returns the parameters that evaluators may take, see `evaluation.CONTEXT`.

    Args:
      config: Whole config.
      split: Name of the split.
      records: Records of the split.
      relevance: Relevance of two records, by which triplets are sampled.
      workdir: Folder of the run, which stores the evaluation triplets.
    """
    from deeprank_jax.sampling.pair_file import read_pairs  # It needs pyarrow.

    gains = tuple(config.evaluation.gains)
    graded = create_relevance("hierarchy", levels=gains) if gains else relevance
    return {
        "split": split,
        "records": records,
        "labels": records.labels,
        "attributes": records.labels if gains else records.attributes,
        "relevance": graded,
        "sampling_relevance": relevance,
        "relevance_options": config.relevance.to_json_best_effort(sort_keys=True),
        **config.triplets.to_dict(),
        "triplets_path": workdir / "triplets" / f"{split}.csv",
        "read_ratings": lambda file: read_rated_splits(file, {split: records}, [split]),
        "read_pairs": lambda file: read_pairs(file, records, root=config.data.dir),
        "seed": config.seed,
        "cache": cache_dir.cache_dir(config),
    }


def evaluation_triplets(
    config: ml_collections.ConfigDict,
    records: Records,
    relevance: Relevance,
    workdir: pathlib.Path,
    split: str,
) -> np.ndarray | None:
    """Returns the stored triplets of a split, sampled if they are not there yet.

    Args:
      config: Whole config.
      records: Records of the split.
      relevance: Relevance of two records.
      workdir: Folder of the run, which stores the triplets.
      split: Name of the split.

    Returns:
      `[T, 3]` int, indices of records; None if the split holds no triplet.
    """
    options = config.evaluation.evaluators.to_dict().get("triplets", {})
    context = create_context(config, split, records, relevance, workdir)
    evaluator = create_evaluators({"triplets": options}, context).get("triplets")
    if not isinstance(evaluator, evaluation_lib.SampledTriplets):
        return None
    return evaluator.triplets


def _check_finite(
    embeddings: np.ndarray, description: str, *, must_be_finite: bool
) -> None:
    """Checks the embeddings of a batch, and warns if some are not finite.

    Raises:
      DataError: None is finite, and it must be.
    """
    is_finite = np.isfinite(embeddings).all(axis=1)
    if not is_finite.any() and must_be_finite:
        raise DataError(
            f"{description}: no embedding of a batch is finite, so there is nothing to "
            "measure: the network has diverged, or its weights are wrong. Lower "
            "config.optimizer.learning_rate, or start from other weights."
        )
    if not is_finite.all():
        logging.warning(
            "%s: some embeddings are not finite; their records are left out of all "
            "metrics.",
            description,
        )
