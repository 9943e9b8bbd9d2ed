"""Systems of the paper's table: descriptors, learned baselines, trained networks."""

from collections.abc import Callable, Mapping, Sequence
import functools

import numpy as np

from deeprank_jax.baselines import combined, handmade
from deeprank_jax.baselines.systems import System, unit_rows
from deeprank_jax.data import cache_dir
from deeprank_jax.descriptors.pixels import center_and_normalize
from deeprank_jax.experiments import features, runs
from deeprank_jax.experiments.paper_table import rows as rows_lib
from deeprank_jax.experiments.paper_table.dataset import IMAGE_SIZE, Table
from deeprank_jax.experiments.paper_table.plan import Plan
from deeprank_jax.progress import Bar
from deeprank_jax.training import experiment

Embed = Callable[..., tuple[np.ndarray, np.ndarray]]


def hand_made_systems(table: Table) -> dict[str, System]:
    """Returns the descriptors and the baselines learned from them, by row."""
    config, train = table.config, table.rows["train"]

    def load(split: str) -> tuple[np.ndarray, np.ndarray]:
        records = table.splits[split]
        with experiment.create_reader(config, records, image_size=IMAGE_SIZE) as reader:
            return reader.load(np.arange(len(records)))

    descriptors = handmade.describe_all(
        table.splits,
        load,
        rows_lib.DESCRIPTORS,
        image_size=IMAGE_SIZE,
        fit=config.data.fit,
        folder=cache_dir.cache_dir(config),
        workers=config.data.workers,
        seed=config.seed,
        progress=lambda batches, text: Bar(batches, desc=text, unit="batch"),
    )
    golden, _ = combined.golden_feature(
        descriptors, table.rated_triplets, train, seed=config.seed
    )
    hashed = combined.l1_hash_kpca(
        golden, train, seed=config.seed, workers=config.data.workers
    )
    triplets = table.training_triplets()
    oasis, _ = combined.oasis(hashed, triplets, table.validation_triplets, train)
    rows = hand_made_rows(descriptors, table.rows)
    return {**rows, "golden": golden, "l1_hash_kpca": hashed, "oasis": oasis}


def network_systems(
    table: Table, launcher: runs.Runs, plan: Plan, visual: System
) -> dict[str, System]:
    """Trains the networks and returns their rows.

    Args:
      table: Dataset of the table.
      launcher: Training runs of the networks.
      plan: Plan with the networks' settings.
      visual: System joined with the single-scale network.
    """
    for name in Bar(plan.networks, desc="networks", unit="run"):
        launcher.train(name, plan.settings(name, launcher.workdir))
    embed = functools.partial(
        features.embed_by_run,
        splits=table.splits,
        data_dir=table.config.data.dir,
    )
    return network_rows(
        lambda name, **options: embed(launcher.workdir / name, **options),
        visual,
        table.training_triplets(),
        table.validation_triplets,
        table.rows["train"],
        further=tuple(plan.further),
    )


def hand_made_rows(
    descriptors: Mapping[str, System], rows: Mapping[str, slice]
) -> dict[str, System]:
    """Returns the rows of descriptors; pixels are centred on each split, as in a run.

    Args:
      descriptors: Descriptors of all records by name.
      rows: Rows of each split's records.
    """
    pixels, ok = descriptors["pixels"].embeddings.copy(), descriptors["pixels"].ok
    for part in rows.values():
        pixels[part][ok[part]] = center_and_normalize(pixels[part][ok[part]])
    return {**descriptors, "pixels": System(embeddings=pixels, ok=ok)}


def network_rows(
    embed: Embed,
    visual: System,
    triplets: list[np.ndarray],
    validation_triplets: np.ndarray,
    train: slice,
    *,
    further: Sequence[str] = (),
) -> dict[str, System]:
    """Returns the rows of networks and of the systems built on them.

    Args:
      embed: Function from the name of a run, and `logits=True`, to the rows of all
        splits in turn and a mask of those that could be read.
      visual: System joined with the single-scale network.
      triplets: Batches of rows of the training split, for OASIS.
      validation_triplets: `[T, 3]` rows of validation.
      train: Rows of the training split.
      further: Names of runs that are not the paper's.
    """
    rows = {}
    for name in (*rows_lib.TRAINED, *further):
        embeddings, ok = embed(name)
        rows[name] = System(embeddings=embeddings, ok=ok)
    logits, ok = embed("softmax", logits=True)
    # A constant added to all logits changes no class probability.
    logits -= logits.mean(axis=1, keepdims=True)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    classes = exponents / exponents.sum(axis=1, keepdims=True)
    rows["softmax_logits"] = System(embeddings=unit_rows(logits), ok=ok)
    rows["softmax_classes"] = System(embeddings=classes.astype(np.float32), ok=ok)
    single = rows["single_scale"]
    rows["oasis_single_scale"], _ = combined.oasis(
        single, triplets, validation_triplets, train
    )
    rows["single_scale_visual"] = combined.join(single, visual, validation_triplets)
    return rows
