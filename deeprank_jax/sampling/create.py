"""Samplers by the name in `config.sampler`."""

from collections.abc import Sequence
import os
from typing import Any

from absl import logging
import ml_collections
import numpy as np

from deeprank_jax.data import cache_dir
from deeprank_jax.data.records import Records
from deeprank_jax.registry import Registry, config_keys
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import (
    Candidates,
    TripletSampler,
    create_candidates,
    triplet_file,
)
from deeprank_jax.sampling.file_sampler import FileSampler
from deeprank_jax.sampling.reservoir.group_sampler import GroupSampler, check_group_size
from deeprank_jax.sampling.reservoir.options import check_options
from deeprank_jax.sampling.stream import RankingSampler

# Keys of `config.triplets`: valid triplets, for sampler, loss and evaluation alike.
_SHARED = ("category_level", "positive_cap", "min_relevance_gap")
# Options of a reservoir that decide the images of a group.
GROUP_SIZE = ("positives_per_anchor", "negatives_per_anchor")
# Parameters of the samplers that are not their options.
CONTEXT = (
    *("records", "relevance", "others", *_SHARED),
    *("seed", "shard", "num_shards", "cache", "root"),
)


def _create_reservoir(
    *,
    mode: str = "importance",
    capacity: int = 4096,
    records_per_step: int = 256,
    warmup_records: int | None = None,
    out_of_class: float = 0.2,
    min_positive_relevance: float = 0.0,
    positives_per_anchor: int = 1,
    negatives_per_anchor: int = 1,
    records: Records,
    relevance: Relevance,
    category_level: int | None,
    positive_cap: float,
    min_relevance_gap: float,
    seed: int,
    shard: int,
    num_shards: int,
    cache: str | os.PathLike[str] | None,
) -> RankingSampler:
    """Creates a `TripletSampler`, or a `GroupSampler` of larger groups.

    Args:
      mode: Weights of the draws: `"importance"`, or `"uniform"`, the paper's baseline.
      capacity: Number of records in the buffer of a category.
      records_per_step: Number of records ingested per step.
      warmup_records: Number of records ingested before step 0; None for a million.
      out_of_class: Share of negatives of other categories.
      min_positive_relevance: Least relevance of a positive; not in the paper.
      positives_per_anchor: Number of positives of each anchor.
      negatives_per_anchor: Number of negatives; 0 leaves those of other groups.
      records: Records of the split, with their attributes.
      relevance: Relevance of two records.
      category_level: Label level of the categories; None for a single category.
      positive_cap: Relevance beyond which a positive is not drawn more often.
      min_relevance_gap: Least difference in relevance of positive and negative.
      seed: Seed of all draws.
      shard: Index of this process.
      num_shards: Number of processes.
      cache: Folder that keeps expensive sums of relevance; None keeps none.
    """
    sampler = TripletSampler(
        _create_candidates(records, relevance, category_level, cache),
        relevance,
        mode=mode,
        capacity=capacity,
        records_per_step=records_per_step,
        warmup_records=warmup_records,
        out_of_class=out_of_class,
        min_positive_relevance=min_positive_relevance,
        positive_cap=positive_cap,
        min_relevance_gap=min_relevance_gap,
        seed=seed,
        shard=shard,
        num_shards=num_shards,
        cache=cache,
    )
    if positives_per_anchor > 1:
        _check_group_fits(records, category_level, positives_per_anchor)
    return _of_group_size(sampler, positives_per_anchor, negatives_per_anchor)


def _check_group_fits(
    records: Records, category_level: int | None, positives_per_anchor: int
) -> None:
    """Checks that some category holds a group without repeats.

    Raises:
      ValueError: None does.
    """
    largest = len(records)
    if category_level is not None:
        largest = int(np.bincount(records.labels[:, category_level]).max(initial=0))
    if positives_per_anchor >= largest:
        raise ValueError(
            f"positives_per_anchor={positives_per_anchor} is more than any image has: "
            f"the largest category has {largest} images, so give at most {largest - 1}."
        )


def _of_group_size(
    sampler: TripletSampler, positives_per_anchor: int, negatives_per_anchor: int
) -> RankingSampler:
    """Returns the sampler of triplets itself, or one of larger groups."""
    if positives_per_anchor == negatives_per_anchor == 1:
        return sampler
    return GroupSampler(
        sampler,
        positives_per_anchor=positives_per_anchor,
        negatives_per_anchor=negatives_per_anchor,
    )


def _create_candidates(
    records: Records,
    relevance: Relevance,
    category_level: int | None,
    cache: str | os.PathLike[str] | None,
) -> Candidates:
    """Returns the records to draw from, and logs how many are negatives only."""
    candidates = create_candidates(records, relevance, category_level, cache=cache)
    if candidates.num_without_positive:
        logging.info(
            "%s: %s of %s records are relevant to no other of their category; they "
            "are drawn as negatives only.",
            records.name,
            f"{candidates.num_without_positive:,}",
            f"{len(candidates):,}",
        )
    return candidates


def _create_file(
    *,
    file: str,
    records: Records,
    relevance: Relevance,
    others: Sequence[Records],
    category_level: int | None,
    seed: int,
    shard: int,
    num_shards: int,
    root: str,
) -> RankingSampler:
    """Creates a `FileSampler`, which takes its triplets from a file.

    Args:
      file: Path of a file of triplets, e.g. written by `deeprank triplets`.
      records: Records of the split, with their attributes.
      relevance: Relevance of two records, for a file without relevances.
      others: Records of the other splits; their triplets are left out.
      category_level: Label level of the categories; None for a single category.
      seed: Seed of the order.
      shard: Index of this process.
      num_shards: Number of processes.
      root: Folder that the paths of the images start from.
    """
    data = triplet_file.read_triplets(file, records, others=others, root=root)
    if data.num_left_out:
        logging.info(
            "%s: %s triplets hold an image of another split than %s, and are left out.",
            file,
            f"{data.num_left_out:,}",
            records.name,
        )
    return FileSampler(
        data,
        records,
        relevance,
        category_level=category_level,
        seed=seed,
        shard=shard,
        num_shards=num_shards,
    )


SAMPLERS: Registry[RankingSampler] = Registry(
    "config.sampler",
    {"reservoir": _create_reservoir, "file": _create_file},
    methods=("sample", "state"),
)
register_sampler = SAMPLERS.register


def create_sampler(
    config: ml_collections.ConfigDict,
    records: Records,
    relevance: Relevance,
    others: Sequence[Records] = (),
    *,
    shard: int = 0,
    num_shards: int = 1,
) -> RankingSampler:
    """Creates the sampler selected by `config.sampler`.

    Args:
      config: Whole configuration.
      records: Records of the split, with their attributes.
      relevance: Relevance of two records.
      others: Records of the other splits, whose triplets a file may hold, too.
      shard: Index of this process among those that share the draws.
      num_shards: Number of those processes.

    Raises:
      ConfigError: An option does not exist or is out of its range.
      DataError: The records hold no triplet, or a triplet file cannot be used.
    """
    options, shared = _sections(config)
    keys = {key: f"config.triplets.{key}" for key in _SHARED}
    with config_keys({**keys, "seed": "config.seed"}):
        return SAMPLERS.create(
            options,
            **shared,
            records=records,
            relevance=relevance,
            others=others,
            seed=config.seed,
            shard=shard,
            num_shards=num_shards,
            cache=cache_dir.cache_dir(config),
            root=config.data.dir,
        )


def group_size(config: ml_collections.ConfigDict) -> dict[str, int]:
    """Returns the numbers of positives and of negatives of a group, by option."""
    sizes = {name: config.sampler.get(name, 1) for name in GROUP_SIZE}
    # Before the data have chosen a size, any stands for it.
    return {name: 1 if size is None else int(size) for name, size in sizes.items()}


def check_sampler(config: ml_collections.ConfigDict) -> None:
    """Checks `config.sampler` and `config.triplets` without any data.

    Raises:
      ConfigError: An option does not exist or is out of its range.
    """
    options, shared = _sections(config)
    # None is chosen by the data.
    is_open = lambda key: key in GROUP_SIZE and options[key] is None
    options = {key: options[key] for key in options if not is_open(key)}
    SAMPLERS.check(options, CONTEXT)
    name = options.pop("name")
    del shared["category_level"]  # Checked with the records, whose levels it counts.
    keys = {key: f"config.sampler.{key}" for key in options}
    keys |= {key: f"config.triplets.{key}" for key in shared}
    if name == "reservoir":
        sizes = {key: options.pop(key, 1) for key in GROUP_SIZE}
        with config_keys(keys):
            check_group_size(**sizes)
            check_options(**options, **shared)


def _sections(
    config: ml_collections.ConfigDict,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns `config.sampler` and the values of `config.triplets`."""
    return config.sampler.to_dict(), {key: config.triplets[key] for key in _SHARED}
