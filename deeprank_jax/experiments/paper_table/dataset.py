"""Dataset of the paper's table: records, evaluation triplets, metrics of a system."""

from collections.abc import Iterable
import contextlib
import dataclasses
import pathlib

import ml_collections
import numpy as np

from deeprank_jax import data, relevance, sampling
from deeprank_jax import evaluation as evaluation_lib
from deeprank_jax.baselines import oasis
from deeprank_jax.baselines.systems import System, rows_of
from deeprank_jax.data import leakage, rated_triplets, simulated_ratings
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.evaluation import calibration
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.training import experiment

# Side of the images that descriptors are computed from, in pixels.
IMAGE_SIZE = 72
_NUM_RATED = 10_000
_FALSE_MATCH_RATES = (0.1, 0.01, 0.001)
# Batches of 1,024 triplets to train OASIS on.
_NUM_BATCHES = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A dataset and its evaluation.

    Attributes:
      config: Config of the dataset, its relevance and its metrics.
      splits: Records by split.
      kind: Relevance of the records.
      rows: Rows of a system that belong to each split.
      test: Evaluation of the test split.
      validation_triplets: `[T, 3]` rows of validation, for choosing settings.
      rated_triplets: `[T, 3]` rows for the golden feature, which trains on those of
        the training split.
      ratings: Description of the ratings, in words.
    """

    config: ml_collections.ConfigDict
    splits: dict[str, Records]
    kind: relevance.Relevance
    rows: dict[str, slice]
    test: split_lib.SplitEvaluation
    validation_triplets: np.ndarray
    rated_triplets: np.ndarray
    ratings: str

    def measurable(self, systems: Iterable[System]) -> np.ndarray:
        """Returns a mask `[N]` of the test records that all systems embed."""
        return np.logical_and.reduce([x.ok[self.rows["test"]] for x in systems])

    def measure(
        self, system: System, ok: np.ndarray
    ) -> dict[str, evaluation_lib.QueryScores]:
        """Returns every metric of a system on the test split, query by query.

        Args:
          system: System to measure.
          ok: `[N]` bool, the test records to measure on.
        """
        rows = self.rows["test"]
        queries = None if system.queries is None else system.queries[rows]
        return self.test.measure_queries(system.embeddings[rows], ok, queries).scores

    def measure_whole(self, system: System, ok: np.ndarray) -> dict[str, float]:
        """Returns the metrics that are not means over queries: clusters and pairs.

        They are not defined for a similarity that is not symmetric, which has none.

        Args:
          system: System to measure.
          ok: `[N]` bool, the test records to measure on.
        """
        if system.queries is not None:
            return {}
        embeddings = system.embeddings[self.rows["test"]]
        labels = self.splits["test"].labels
        clusters = evaluation_lib.Clustering(labels, seed=self.config.seed)
        metrics = {f"clustering/{k}": x for k, x in clusters.run(embeddings, ok)}
        missed = calibration.false_non_match_rates(
            embeddings[ok], labels[ok, -1], _FALSE_MATCH_RATES, seed=self.config.seed
        )
        if missed is not None:
            rates = zip(_FALSE_MATCH_RATES, missed, strict=True)
            metrics |= {f"pairs/fnmr@{rate:g}": value for rate, value in rates}
        return metrics

    def find_leakage(self) -> leakage.Leakage:
        """Returns the leakage between the training and the test split."""
        names = ("train", "test")
        with contextlib.ExitStack() as stack:
            readers = {
                name: stack.enter_context(
                    experiment.create_reader(
                        self.config, self.splits[name], image_size=IMAGE_SIZE
                    )
                )
                for name in names
            }
            records = {name: self.splits[name] for name in names}
            limit = self.config.evaluation.max_compared
            return leakage.find_leakage(records, readers, max_images=limit)["test"]

    def training_triplets(self) -> list[np.ndarray]:
        """Returns batches `[1024, 3]` of rows, drawn like the networks' triplets."""
        sampler, triplets = self.config.sampler, self.config.triplets
        batches = oasis.draw_batches(
            sampling.create_candidates(
                self.splits["train"], self.kind, triplets.category_level
            ),
            self.kind,
            _NUM_BATCHES,
            seed=self.config.seed,
            mode=sampler.mode,
            positive_cap=triplets.positive_cap,
            min_relevance_gap=triplets.min_relevance_gap,
            out_of_class=sampler.out_of_class,
        )
        return [self.rows["train"].start + batch for batch in batches]


def create_table(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Table:
    """Opens the dataset and draws its evaluation triplets.

    Raises:
      DataError: The dataset cannot be used, or has no evaluation triplet.
    """
    kind = experiment.create_run_relevance(config)
    splits = relevance.attach(kind, data.create_records(config.data))
    rows = rows_of(splits)
    reader = experiment.create_reader(config, splits["test"], image_size=IMAGE_SIZE)
    triplets = split_lib.evaluation_triplets(
        config, splits["validation"], kind, workdir, "validation"
    )
    if triplets is None:
        raise DataError(
            "the validation split has no triplet to choose settings by; give a "
            "dataset with at least two images of a class in it."
        )
    ratings = _read_ratings(config, splits)
    evaluators = config.evaluation.evaluators.to_dict()
    if "test" not in ratings:
        evaluators.pop("rated_triplets", None)
    test = split_lib.SplitEvaluation(
        config,
        "test",
        splits["test"],
        reader,
        kind,
        workdir,
        evaluators=evaluators | {"hierarchical": {}},
        read_ratings=lambda file: ratings,
    )
    rated, description = _training_ratings(config, splits, rows, ratings)
    return Table(
        config=config,
        splits=splits,
        kind=kind,
        rows=rows,
        test=test,
        validation_triplets=rows["validation"].start + triplets,
        rated_triplets=rated,
        ratings=description,
    )


def _read_ratings(
    config: ml_collections.ConfigDict, splits: dict[str, Records]
) -> dict[str, rated_triplets.RatedTriplets]:
    """Returns people's ratings of the training and the test split, where there are any.

    Raises:
      DataError: The file cannot be used, or has ratings of neither split.
    """
    path = config.evaluation.evaluators.get("rated_triplets", {}).get("file", "")
    if not path:
        return {}
    names = ["train", "test"]
    if "{split}" in path:
        file = lambda name: pathlib.Path(path.replace("{split}", name)).expanduser()
        names = [name for name in names if name == "test" or file(name).exists()]
    ratings = rated_triplets.read_rated_splits(path, splits, names)
    return {name: x for name, x in ratings.items() if len(x.indices)}


def _training_ratings(
    config: ml_collections.ConfigDict,
    splits: dict[str, Records],
    rows: dict[str, slice],
    ratings: dict[str, rated_triplets.RatedTriplets],
) -> tuple[np.ndarray, str]:
    """Returns `[T, 3]` rows for the golden feature, and a description of the ratings.

    Without ratings of training images all are simulated.
    """
    lines = [f"{name}: {x.describe()}" for name, x in ratings.items()]
    if "train" in ratings:
        triplets = [rows[name].start + x.indices for name, x in ratings.items()]
        return np.concatenate(triplets), "; ".join(lines)
    rated = simulated_ratings.simulate_ratings(splits, num=_NUM_RATED, seed=config.seed)
    train = rows["train"]
    in_train = np.all((rated >= train.start) & (rated < train.stop), axis=1)
    lines.append(f"train: {in_train.sum():,}, simulated from names and categories")
    return rated, "; ".join(lines)
