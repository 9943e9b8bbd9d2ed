"""What the paper's table is measured on: records, and every metric of a system."""

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
from deeprank_jax.evaluation import calibration
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.training import experiment

# Pixels of the images that are described.
IMAGE_SIZE = 72
_NUM_RATED = 10_000
_FALSE_MATCH_RATES = (0.1, 0.01, 0.001)
# Of 1,024 triplets for OASIS.
_NUM_BATCHES = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A dataset and what is measured on it.

    Attributes:
      config: of the dataset, its relevance and its metrics.
      splits: the records.
      kind: their relevance.
      rows: which rows of a system are the records of each split.
      test: what is measured.
      judged: `[T, 3]` rows of validation, by which settings are chosen.
      rated: `[T, 3]` rows, for the golden feature: it learns from those of training.
      told: which ratings there are, in words.
    """

    config: ml_collections.ConfigDict
    splits: dict[str, Records]
    kind: relevance.Relevance
    rows: dict[str, slice]
    test: split_lib.SplitEvaluation
    judged: np.ndarray
    rated: np.ndarray
    told: str

    def measurable(self, systems: Iterable[System]) -> np.ndarray:
        """Returns `[N]` bool, the records of test that all systems have."""
        return np.logical_and.reduce([x.ok[self.rows["test"]] for x in systems])

    def measure(
        self, system: System, ok: np.ndarray
    ) -> dict[str, evaluation_lib.QueryScores]:
        """Returns every metric of a system on the test split, query by query.

        Args:
          system: what to measure.
          ok: `[N]` bool, the records of test to measure it on.
        """
        rows = self.rows["test"]
        queries = None if system.queries is None else system.queries[rows]
        return self.test.scores(system.embeddings[rows], ok, queries)

    def measure_whole(self, system: System, ok: np.ndarray) -> dict[str, float]:
        """Returns what is no mean over queries: of clusters, and of pairs.

        Nothing for a similarity that is not symmetric, of which neither is told.

        Args:
          system: as of `measure`.
          ok: as of `measure`.
        """
        if system.queries is not None:
            return {}
        embeddings = system.embeddings[self.rows["test"]]
        labels = self.splits["test"].labels
        clusters = evaluation_lib.Clustering(labels, seed=self.config.seed)
        found = {f"clustering/{k}": x for k, x in clusters.run(embeddings, ok)}
        missed = calibration.false_non_match_rates(
            embeddings[ok], labels[ok, -1], _FALSE_MATCH_RATES, seed=self.config.seed
        )
        if missed is not None:
            rates = zip(_FALSE_MATCH_RATES, missed, strict=True)
            found |= {f"pairs/fnmr@{rate:g}": value for rate, value in rates}
        return found

    def overlap(self) -> leakage.Overlap:
        """Returns what the test split shares with training."""
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
            return leakage.find_overlap(records, readers, max_images=limit)["test"]

    def training_triplets(self) -> list[np.ndarray]:
        """Returns batches `[1024, 3]` of rows, drawn as the networks' triplets are."""
        options, train = self.config.sampler, self.splits["train"]
        drawn = oasis.draw_batches(
            sampling.create_candidates(train, self.kind, options.category_level),
            self.kind,
            _NUM_BATCHES,
            seed=self.config.seed,
            mode=options.mode,
            positive_cap=options.positive_cap,
            min_relevance_gap=options.min_relevance_gap,
            out_of_class=options.out_of_class,
        )
        return [self.rows["train"].start + batch for batch in drawn]


def create_table(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Table:
    """Opens the dataset, and draws the triplets to measure by."""
    kind = experiment.create_run_relevance(config)
    splits = relevance.attach(kind, data.create_records(config.data))
    rows = rows_of(splits)
    reader = experiment.create_reader(config, splits["test"], image_size=IMAGE_SIZE)
    path = workdir / "triplets" / "validation.csv"
    judged = split_lib.evaluation_triplets(config, splits["validation"], kind, path)
    if judged is None:
        raise ValueError("The validation split has no triplet to choose settings by.")
    ratings = _read_ratings(config, splits)
    test = split_lib.SplitEvaluation(
        config,
        "test",
        splits["test"],
        reader,
        kind,
        workdir,
        rated=ratings.get("test"),
    )
    test.add_hierarchical_ap()
    rated, told = _ratings_to_learn(config, splits, rows, ratings)
    return Table(
        config=config,
        splits=splits,
        kind=kind,
        rows=rows,
        test=test,
        judged=rows["validation"].start + judged,
        rated=rated,
        told=told,
    )


def _read_ratings(
    config: ml_collections.ConfigDict, splits: dict[str, Records]
) -> dict[str, rated_triplets.RatedTriplets]:
    """Returns what people rated of training and of test, where they did.

    Raises:
      DataError: the file cannot be used, or holds nothing of either.
    """
    path = config.evaluation.rated_triplets
    if not path:
        return {}
    names = ["train", "test"]
    if "{split}" in path:
        file = lambda name: pathlib.Path(path.replace("{split}", name)).expanduser()
        names = [name for name in names if name == "test" or file(name).exists()]
    found = rated_triplets.read_rated_splits(path, splits, names)
    return {name: x for name, x in found.items() if len(x.indices)}


def _ratings_to_learn(
    config: ml_collections.ConfigDict,
    splits: dict[str, Records],
    rows: dict[str, slice],
    ratings: dict[str, rated_triplets.RatedTriplets],
) -> tuple[np.ndarray, str]:
    """Returns `[T, 3]` rows for the golden feature, and in words what is rated.

    Without ratings of training images all are simulated.
    """
    told = [f"{name}: {found.describe()}" for name, found in ratings.items()]
    if "train" in ratings:
        rated = [rows[name].start + found.indices for name, found in ratings.items()]
        return np.concatenate(rated), "; ".join(told)
    rated = simulated_ratings.simulate_ratings(splits, num=_NUM_RATED, seed=config.seed)
    train = rows["train"]
    own = np.all((rated >= train.start) & (rated < train.stop), axis=1)
    told.append(f"train: {own.sum():,}, simulated from names and categories")
    return rated, "; ".join(told)
