r"""Learns a golden feature from rated triplets, or simulates such ratings.

  deeprank golden-feature --config=emoji_paper --simulate=ratings.csv
  deeprank golden-feature --config=emoji_paper --triplets=ratings.csv \
      --out=golden.parquet [--model=runs/emoji]

Then train with --config.relevance.name=golden --config.relevance.file=golden.parquet.
"""

import argparse
import pathlib
from typing import TYPE_CHECKING

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result
from deeprank_jax.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from deeprank_jax.data.records import Records


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_config(parser)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument(
        "--triplets", metavar="FILE", type=arguments.PATH,
        help="rated triplets to learn from",
    )  # fmt: skip
    task.add_argument(
        "--simulate", metavar="FILE", type=arguments.PATH,
        help="rated triplets to write, simulated by the names of the images",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH, default="golden.parquet",
        help="golden feature to write",
    )  # fmt: skip
    parser.add_argument(
        "--features", metavar="NAMES", type=arguments.comma_separated,
        help="descriptors to combine, separated by commas; all by default",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="DIR", type=arguments.PATH, action="append", default=[],
        help="folder of a run whose embeddings are combined, too; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--image_size", metavar="PIXELS", type=arguments.at_least(1), default=64,
        help="side of the images that descriptors are computed from",
    )  # fmt: skip
    parser.add_argument(
        "--max_dims", metavar="N", type=arguments.at_least(1), default=64,
        help="largest number of dimensions of a feature",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws")
    parser.add_argument(
        "--num_simulated", metavar="N", type=arguments.at_least(1), default=10_000,
        help="number of triplets to simulate",
    )  # fmt: skip


def run(options: argparse.Namespace) -> Result:
    """Simulates ratings, or learns from ratings and writes the golden feature."""
    from deeprank_jax import data

    options.config = arguments.load_config(options)
    splits = data.create_records(options.config.data)
    if options.simulate:
        return _simulate(splits, options)
    return _learn(splits, options)


def _simulate(splits: "dict[str, Records]", options: argparse.Namespace) -> Result:
    """Writes simulated ratings."""
    from deeprank_jax.data import rated_triplets, simulated_ratings

    triplets = simulated_ratings.simulate_ratings(
        splits, num=options.num_simulated, seed=options.seed
    )
    rated_triplets.write_rated_triplets(options.simulate, triplets, splits)
    values = {"out": options.simulate, "triplets": len(triplets)}
    return Result(values, f"Wrote {len(triplets):,} triplets to {options.simulate}.")


def _learn(splits: "dict[str, Records]", options: argparse.Namespace) -> Result:
    """Learns the golden feature and writes it."""
    import numpy as np

    from deeprank_jax.data import rated_triplets
    from deeprank_jax.relevance import vectors
    from deeprank_jax.relevance.golden import feature_bank, learning

    triplets = rated_triplets.read_rated_triplets(options.triplets, splits).indices
    features, ok = _compute_features(splits, options)
    is_train = np.arange(len(ok)) < len(splits["train"])
    bank = feature_bank.create_bank(
        features, np.flatnonzero(is_train & ok), ok, max_dims=options.max_dims
    )
    golden = learning.learn_golden_feature(bank, triplets, is_train, seed=options.seed)
    fingerprints = {name: records.fingerprint for name, records in splits.items()}
    metadata = golden.metadata()
    ids = rated_triplets.descriptions(splits)
    vectors.write_vectors(
        options.out,
        ids,
        golden.values,
        {"records": fingerprints, "command": options.command_line, **metadata},
    )
    dim = golden.values.shape[1]
    text = (
        f"{learning.format_table(golden)}\n"
        f"Wrote {len(ids):,} vectors of {dim} to {options.out}."
    )
    values = {"out": options.out, "vectors": len(ids), "dim": dim, **metadata}
    return Result(values, text)


def _compute_features(
    splits: "dict[str, Records]", options: argparse.Namespace
) -> "tuple[dict[str, np.ndarray], np.ndarray]":
    """Returns every feature, `[N, D]`, and the mask of readable records, `[N]`."""
    import numpy as np

    from deeprank_jax import descriptors
    from deeprank_jax.experiments import features as features_lib

    config, names = options.config, options.features
    if names is None:
        names = descriptors.hand_made_names()
    features, ok = {}, np.ones(sum(map(len, splits.values())), bool)
    if names:
        features, ok = features_lib.compute_descriptors(
            config, splits, names, options.image_size
        )
    for workdir in map(pathlib.Path, options.model):
        embeddings, embedded = features_lib.embed_by_run(
            workdir, splits, config.data.dir
        )
        features[f"model:{workdir.name}"] = embeddings
        ok &= embedded
    if not features:
        raise ConfigError("--features and --model are both empty: give a feature.")
    return features, ok
