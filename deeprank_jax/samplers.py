"""What gives a run its batches: the sampler that its config names."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from absl import logging
import jax
import ml_collections

from deeprank_jax import checkpoints, classification
from deeprank_jax import config as config_lib
from deeprank_jax.data.records import Records
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import TripletSampler, create_candidates, triplet_file
from deeprank_jax.sampling.labelled import LabelledSampler
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.sampling.triplet_list import FileTriplets


def create_run_sampler(
    config: ml_collections.ConfigDict,
    records: Mapping[str, Records],
    relevance: Relevance,
    classes: classification.Classes | None,
) -> Sampler:
    """Returns what gives this process's part of each batch."""
    if classes is not None:
        labels = classes.labels[classes.learned]
        return LabelledSampler(classes.learned, labels, **_process(config))
    others = [part for split, part in records.items() if split != "train"]
    return create_sampler(config, records["train"], relevance, others)


def create_sampler(
    config: ml_collections.ConfigDict,
    records: Records,
    relevance: Relevance,
    others: Sequence[Records] = (),
) -> TripletSampler | FileTriplets:
    """Returns what gives this process's triplets of a split.

    Args:
      config: the whole configuration.
      records: of the split, with their attributes.
      relevance: of the run.
      others: the other splits, whose triplets a file may hold, too.

    Raises:
      NoTripletError: the records hold no triplet.
      ValueError: an option is out of its range, or a triplet file cannot be used.
    """
    options = config.sampler.to_dict()
    name, file = options.pop("name"), options.pop("file")
    level = options.pop("category_level")
    process = _process(config)
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
        records, relevance, level, cache=config_lib.cache_dir(config)
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


def _process(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns which share of the draws is this process's."""
    return {
        "seed": config.seed,
        "shard": jax.process_index(),
        "num_shards": jax.process_count(),
    }


def check_sampler(
    found: Mapping[str, Any], wanted: Mapping[str, Any], where: pathlib.Path
) -> None:
    """Checks that the draws go on as they began.

    Raises:
      CheckpointError: they would be others.
    """
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) == wanted.get(name):
            continue
        if name == "num_shards":
            logging.warning(
                "Going on with %s processes instead of %s: from here on passes are "
                "dealt to the new number.",
                wanted[name],
                found.get(name),
            )
            continue
        raise checkpoints.CheckpointError(
            f"{where} was made with the sampler's {name} {found.get(name)}, now it is "
            f"{wanted.get(name)}: the triplets would not be those of the run. Give "
            "another --workdir, or the version and data the run began with."
        )
