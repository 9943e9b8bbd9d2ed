"""The systems of the paper's table: described, learned, trained."""

from collections.abc import Callable, Mapping
import functools

import numpy as np
import tqdm

from deeprank_jax.baselines import combined, handmade
from deeprank_jax.baselines.systems import System, unit_rows
from deeprank_jax.data import cache_dir
from deeprank_jax.descriptors.pixels import center_and_normalize
from deeprank_jax.experiments import features, runs
from deeprank_jax.experiments.paper_table import rows as rows_lib
from deeprank_jax.experiments.paper_table.dataset import IMAGE_SIZE, Table
from deeprank_jax.experiments.paper_table.plan import Plan
from deeprank_jax.training import experiment

Embed = Callable[..., tuple[np.ndarray, np.ndarray]]


def hand_made_systems(table: Table) -> dict[str, System]:
    """Returns the rows of descriptors and of what is learned from them."""
    config, train = table.config, table.rows["train"]

    def load(split: str) -> tuple[np.ndarray, np.ndarray]:
        records = table.splits[split]
        with experiment.create_reader(config, records, image_size=IMAGE_SIZE) as reader:
            return reader.load(np.arange(len(records)))

    described = handmade.describe_all(
        table.splits,
        load,
        rows_lib.DESCRIPTORS,
        image_size=IMAGE_SIZE,
        fit=config.data.fit,
        folder=cache_dir.cache_dir(config),
        workers=config.data.workers,
        seed=config.seed,
        progress=lambda batches, text: tqdm.tqdm(batches, desc=text, unit="batch"),
    )
    golden, _ = combined.golden_feature(described, table.rated, train, seed=config.seed)
    hashed = combined.l1_hash_kpca(
        golden, train, seed=config.seed, workers=config.data.workers
    )
    triplets = table.training_triplets()
    learned, _ = combined.oasis(hashed, triplets, table.judged, train)
    rows = hand_made_rows(described, table.rows)
    return {**rows, "golden": golden, "l1_hash_kpca": hashed, "oasis": learned}


def network_systems(
    table: Table, made: runs.Runs, plan: Plan, visual: System
) -> dict[str, System]:
    """Trains the networks and returns their rows.

    Args:
      table: the dataset.
      made: where runs are made.
      plan: says which.
      visual: stands beside the single-scale network.
    """
    for name in tqdm.tqdm(plan.networks, desc="networks", unit="run"):
        made.make(name, plan.settings(name, made.workdir))
    embed = functools.partial(
        features.embed_by_run,
        splits=table.splits,
        data_dir=table.config.data.dir,
    )
    return network_rows(
        lambda name, **options: embed(made.workdir / name, **options),
        visual,
        table.training_triplets(),
        table.judged,
        table.rows["train"],
    )


def hand_made_rows(
    described: Mapping[str, System], rows: Mapping[str, slice]
) -> dict[str, System]:
    """Returns the rows of descriptors; pixels are centred on each split, as in a run.

    Args:
      described: the descriptors, by name.
      rows: which rows are the records of each split.
    """
    pixels, ok = described["pixels"].embeddings.copy(), described["pixels"].ok
    for part in rows.values():
        pixels[part][ok[part]] = center_and_normalize(pixels[part][ok[part]])
    return {**described, "pixels": System(embeddings=pixels, ok=ok)}


def network_rows(
    embed: Embed,
    visual: System,
    triplets: list[np.ndarray],
    judged: np.ndarray,
    train: slice,
) -> dict[str, System]:
    """Returns the rows of networks, and of what is made of them.

    Args:
      embed: maps the name of a run, and `logits=True`, to rows of all splits in turn
        and which are ok.
      visual: stands beside the single-scale network.
      triplets: batches of rows of the training split, for OASIS.
      judged: `[T, 3]` rows of validation.
      train: the rows of the training split.
    """
    rows = {}
    for name in rows_lib.TRAINED:
        embeddings, ok = embed(name)
        rows[name] = System(embeddings=embeddings, ok=ok)
    logits, ok = embed("softmax", logits=True)
    # What is added to all logits changes no class.
    logits -= logits.mean(axis=1, keepdims=True)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    classes = exponents / exponents.sum(axis=1, keepdims=True)
    rows["softmax_logits"] = System(embeddings=unit_rows(logits), ok=ok)
    rows["softmax_classes"] = System(embeddings=classes.astype(np.float32), ok=ok)
    single = rows["single_scale"]
    rows["oasis_single_scale"], _ = combined.oasis(single, triplets, judged, train)
    rows["single_scale_visual"] = combined.join(single, visual, judged)
    return rows
