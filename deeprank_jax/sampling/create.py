"""What gives a run its batches: the sampler that its config names."""

from collections.abc import Sequence

from absl import logging
import ml_collections

from deeprank_jax.data import cache_dir
from deeprank_jax.data.records import Records
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import TripletSampler, create_candidates, triplet_file
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
    name, file = options.pop("name"), options.pop("file")
    level = options.pop("category_level")
    process = {"seed": config.seed, "shard": shard, "num_shards": num_shards}
    if name == "file":
        logging.info(
            "Triplets are those of %s; %s of config.sampler are not asked.",
            file,
            ", ".join(sorted(options)),
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
    return TripletSampler(candidates, relevance, **options, **process)


def _check_sampler(options: ml_collections.ConfigDict) -> None:
    """Checks that there is such a sampler, with its file, and what it draws."""
    if options.name not in ("reservoir", "file"):
        raise ValueError(
            f"config.sampler.name={options.name!r} is no sampler; choose 'reservoir' "
            "or 'file'."
        )
    if (options.name == "file") != bool(options.file):
        raise ValueError(
            f"config.sampler.file={options.file!r} does not go with "
            f"config.sampler.name={options.name!r}: 'file' needs one, as "
            "deeprank_jax.cli.triplets writes it, and 'reservoir' draws its own triplets."
        )
    if options.mode not in ("importance", "uniform"):
        raise ValueError(
            f"config.sampler.mode={options.mode!r} is none; choose 'importance' or "
            "'uniform'."
        )
    if not 0 <= options.out_of_class <= 1:
        raise ValueError(
            f"config.sampler.out_of_class={options.out_of_class} must be in [0, 1]: it "
            "is the share of negatives of other categories."
        )
