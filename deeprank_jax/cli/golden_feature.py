r"""Learns a golden feature from rated triplets and writes it for config.relevance.

  python -m deeprank_jax.cli.golden_feature --config=configs/emoji.py --simulate=ratings.csv
  python -m deeprank_jax.cli.golden_feature --config=configs/emoji.py --triplets=ratings.csv \
      --out=golden.parquet [--model=runs/emoji]

Then train with --config.relevance.name=golden --config.relevance.file=golden.parquet.
"""

import pathlib
import shlex
import sys

from absl import app, flags, logging
from ml_collections import config_flags
import numpy as np

from deeprank_jax import data, descriptors, logs
from deeprank_jax.data import rated_triplets, simulated_ratings
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import backend
from deeprank_jax.experiments import features as features_lib
from deeprank_jax.relevance import vectors
from deeprank_jax.relevance.golden import feature_bank, learning

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The config file.")
_TRIPLETS = flags.DEFINE_string("triplets", "", "Rated triplets to learn from.")
_OUT = flags.DEFINE_string("out", "golden.parquet", "The file to write.")
_FEATURES = flags.DEFINE_list("features", descriptors.hand_made_names(), "To combine.")
_MODEL = flags.DEFINE_multi_string("model", [], "Workdirs of runs: more features.")
_SIZE = flags.DEFINE_integer("image_size", 64, "What descriptors see, in pixels.", 1)
_DIMS = flags.DEFINE_integer("max_dims", 64, "Dimensions kept of a feature.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of all that is drawn.")
_SIMULATE = flags.DEFINE_string("simulate", "", "Writes ratings by names instead.")
_NUM = flags.DEFINE_integer("num_simulated", 10_000, "Triplets to simulate.", 1)
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Simulates ratings, or learns from ratings and writes the golden feature."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    rated, simulated = _TRIPLETS.value, _SIMULATE.value
    if bool(rated) == bool(simulated):
        raise app.UsageError("give either --triplets=FILE or --simulate=OUT.csv")
    backend.configure_backend()
    try:
        splits = data.create_records(_CONFIG.value.data)
        _learn(splits, rated) if rated else _simulate(splits, simulated)
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error


def _simulate(splits: dict[str, Records], path: str) -> None:
    rate = simulated_ratings.simulate_ratings
    triplets = rate(splits, num=_NUM.value, seed=_SEED.value)
    rated_triplets.write_rated_triplets(path, triplets, splits)
    print(f"Wrote {len(triplets):,} triplets to {path}.")


def _learn(splits: dict[str, Records], path: str) -> None:
    triplets = rated_triplets.read_rated_triplets(path, splits).indices
    features, ok = _compute(splits)
    is_train = np.arange(len(ok)) < len(splits["train"])
    bank = feature_bank.create_bank(
        features, np.flatnonzero(is_train & ok), ok, max_dims=_DIMS.value
    )
    learn = learning.learn_golden_feature
    golden = learn(bank, triplets, is_train, seed=_SEED.value)
    print(learning.format_table(golden))
    command = shlex.join(
        ["python", "-m", "deeprank_jax.cli.golden_feature", *sys.argv[1:]]
    )
    fingerprints = {name: records.fingerprint for name, records in splits.items()}
    metadata = {"records": fingerprints, "command": command, **golden.metadata()}
    ids = rated_triplets.descriptions(splits)
    vectors.write_vectors(_OUT.value, ids, golden.values, metadata)
    print(f"Wrote {len(ids):,} vectors of {golden.values.shape[1]} to {_OUT.value}.")


def _compute(splits: dict[str, Records]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns every feature, `[N, D]`, and which records could be read, `[N]`."""
    config, names = _CONFIG.value, _FEATURES.value
    features, ok = {}, np.ones(sum(map(len, splits.values())), bool)
    if names:
        features, ok = features_lib.compute_descriptors(
            config, splits, names, _SIZE.value
        )
    for workdir in map(pathlib.Path, _MODEL.value):
        embeddings, embedded = features_lib.embed_by_run(
            workdir, splits, config.data.dir
        )
        features[f"model:{workdir.name}"] = embeddings
        ok &= embedded
    if not features:
        raise ValueError("--features and --model are both empty: give a feature.")
    return features, ok


if __name__ == "__main__":
    logs.show_own(logging.WARNING)
    app.run(main)
