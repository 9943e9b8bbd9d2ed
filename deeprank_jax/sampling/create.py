"""What gives a run its batches: the sampler that its config names."""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
import ml_collections

from deeprank_jax.data import cache_dir
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ConfigError
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import MODES, TripletSampler, create_candidates, triplet_file
from deeprank_jax.sampling.file_sampler import FileTriplets


def create_sampler(
    config: ml_collections.ConfigDict,
    records: Records,
    relevance: Relevance,
    others: Sequence[Records] = (),
    *,
    shard: int = 0,
    num_shards: int = 1,
) -> TripletSampler | FileTriplets:
    """Returns what gives this process's triplets of a split.

    Args:
      config: the whole configuration.
      records: of the split, with their attributes.
      relevance: of the run.
      others: the other splits, whose triplets a file may hold, too.
      shard: Index of this process among those that share the draws.
      num_shards: Number of those processes.

    Raises:
      NoTripletError: the records hold no triplet.
      ValueError: an option is out of its range, or a triplet file cannot be used.
    """
    options = config.sampler.to_dict()
    name, file = options.pop("name"), options.pop("file", "")
    shared = config.triplets.to_dict()
    level = shared.pop("category_level")
    process = {"seed": config.seed, "shard": shard, "num_shards": num_shards}
    if name == "file":
        logging.info(
            "Triplets are those of %s; %s of config.sampler are not asked.",
            file,
            ", ".join(sorted(shared)),
        )
        read = triplet_file.read_triplets(
            file, records, others=others, root=config.data.dir
        )
        if read.num_left_out:
            logging.info(
                "%s: %s triplets hold an image that is not of %s, and are left out.",
                file,
                f"{read.num_left_out:,}",
                records.name,
            )
        return FileTriplets(read, records, relevance, category_level=level, **process)
    candidates = create_candidates(
        records, relevance, level, cache=cache_dir.cache_dir(config)
    )
    if candidates.num_without_positive:
        logging.info(
            "%s: %s of %s records are relevant to no other of their category; they "
            "are drawn as negatives only.",
            records.name,
            f"{candidates.num_without_positive:,}",
            f"{len(candidates):,}",
        )
    return TripletSampler(candidates, relevance, **options, **shared, **process)


def check_sampler(section: Mapping[str, Any]) -> None:
    """Checks the section `config.sampler` before data are prepared.

    Raises:
      ConfigError: No such sampler exists, or an option is out of its range.
    """
    if section["name"] not in ("reservoir", "file"):
        raise ConfigError(
            f"config.sampler.name={section['name']!r} is not a sampler; choose "
            "'reservoir' or 'file'."
        )
    if section["name"] == "file" and not section.get("file"):
        raise ConfigError(
            "config.sampler.name='file' needs config.sampler.file, as `deeprank "
            "triplets` writes it."
        )
    mode, out_of_class = section.get("mode", MODES[0]), section.get("out_of_class", 0)
    if mode not in MODES:
        raise ConfigError(
            f"config.sampler.mode={mode!r} is not a mode; choose one of {MODES}."
        )
    if not 0 <= out_of_class <= 1:
        raise ConfigError(
            f"config.sampler.out_of_class={out_of_class} must be in [0, 1]: it is the "
            "share of negatives of other categories."
        )
