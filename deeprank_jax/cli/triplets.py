r"""Writes triplets to a file, to look at, to share or to train on.

By default they are those that a run of the config would draw, step by step; with
--evaluation, the fixed ones that a split is evaluated on:

  deeprank triplets --config=emoji_paper --out=triplets.csv --num=1000

Or, like the well-known Keras sampler, N others of the same class for every image of a
folder with a folder per class and, for each of these, M of other classes, none twice:

  deeprank triplets --input_directory=DIR --output_directory=OUT \
      --num_pos_images=N --num_neg_images=M

OUT/triplets.txt has a line `query,positive,negative` for each, with absolute paths,
quoted as in any CSV file where a name has a comma. Train on it by
`--config.sampler.name=file --config.sampler.file=OUT/triplets.txt`; that uses the rows
whose images are all in the training split, and `--split=train` draws only such.
"""

import argparse
from collections.abc import Iterable
import dataclasses
import pathlib
from typing import TYPE_CHECKING

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result

if TYPE_CHECKING:
    from deeprank_jax.data.records import Records
    from deeprank_jax.sampling.groups import Groups

_SUFFIXES = (".csv", ".parquet", ".txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_config(parser, required=False)
    parser.add_argument(
        "--split", choices=("train", "validation", "test"),
        help="split to draw from; train, or test with --evaluation, by default",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=arguments.at_least(0), help="seed; the config's by default"
    )
    config = parser.add_argument_group("triplets of a config")
    config.add_argument(
        "--out", metavar="FILE", type=arguments.PATH,
        help="file to write, .csv, .parquet or .txt; triplets.csv by default",
    )  # fmt: skip
    config.add_argument(
        "--num", type=arguments.at_least(1),
        help="number of triplets; 100,000 by default",
    )  # fmt: skip
    config.add_argument(
        "--mode",
        choices=arguments.MODES,
        help="mode of the sampler; the config's by default",
    )
    config.add_argument(
        "--evaluation", action="store_true", help="write the fixed evaluation triplets"
    )
    folder = parser.add_argument_group("triplets of a folder")
    folder.add_argument(
        "--input_directory", metavar="DIR", type=arguments.PATH,
        help="folder with a folder of images per class",
    )  # fmt: skip
    folder.add_argument(
        "--output_directory", metavar="DIR", type=arguments.PATH,
        help="folder to write triplets.txt in; the current one by default",
    )  # fmt: skip
    folder.add_argument(
        "--num_pos_images", metavar="N", type=arguments.at_least(1),
        help="number of positives of an image; 1 by default",
    )  # fmt: skip
    folder.add_argument(
        "--num_neg_images", metavar="M", type=arguments.at_least(1),
        help="number of negatives of a positive; 1 by default",
    )  # fmt: skip
    parser.set_defaults(usage_error=parser.error)


def check(options: argparse.Namespace) -> None:
    """Checks the combination of arguments, and the path."""
    if (options.config is None) == (options.input_directory is None):
        options.usage_error("give either --config and --out or --input_directory")
    names = ["output_directory", "num_pos_images", "num_neg_images"]
    if options.input_directory is not None:
        names = ["out", "num", "mode", "evaluation"]
    elif options.evaluation:
        names += ["num", "mode"]
    unused = [f"--{name}" for name in names if getattr(options, name)]
    if unused:
        options.usage_error(f"{', '.join(unused)} would change nothing here")
    arguments.check_out(options.out, _SUFFIXES)


def run(options: argparse.Namespace) -> Result:
    """Draws the triplets and writes them."""
    import jax

    from deeprank_jax.sampling import triplet_file

    jax.config.update("jax_platforms", "cpu")  # A run may hold the accelerator.
    if options.input_directory is None:
        path = options.out or "triplets.csv"
        triplets = _draw_from_config(options)
    else:
        path = f"{options.output_directory or '.'}/triplets.txt"
        triplets = _draw_from_folder(options)
    num = triplet_file.write_triplets(path, *triplets)
    return Result({"out": path, "triplets": num}, f"Wrote {num:,} triplets to {path}.")


def _draw_from_config(
    options: argparse.Namespace,
) -> "tuple[Records, Iterable[Groups], int | None]":
    """Returns the records, batches of triplets, and their number if it is fixed."""
    import numpy as np

    from deeprank_jax import config as config_lib
    from deeprank_jax import data, files, relevance
    from deeprank_jax.evaluation import split as split_lib
    from deeprank_jax.progress import Bar
    from deeprank_jax.sampling import create, file_sampler
    from deeprank_jax.training import data_defaults, experiment

    config = arguments.load_config(options)
    config.seed = config.seed if options.seed is None else options.seed
    if options.mode:
        config.sampler.mode = options.mode
    # A file holds triplets, whatever groups the config trains on.
    for size in create.GROUP_SIZE:
        if size in config.sampler:
            config.sampler[size] = 1
    config_lib.check_config(config)
    config = data_defaults.fit_to_data(config)
    run_relevance = experiment.create_run_relevance(config)
    splits = relevance.attach(run_relevance, data.create_records(config.data))
    name = options.split or ("test" if options.evaluation else "train")
    records = data.select_split(splits, name)
    if not options.evaluation:
        num = options.num or 100_000
        sampler = create.create_sampler(config, records, run_relevance)
        steps = Bar(range(-(-num // config.batch_size)), desc="triplets", unit="batch")
        batches = (sampler.sample(step, config.batch_size) for step in steps)
        return records, batches, num
    with files.scratch_folder() as directory:
        indices = split_lib.evaluation_triplets(
            config,
            records,
            run_relevance,
            directory,
            options.split or "test",
        )
    level = config.triplets.category_level
    indices = np.zeros((0, 3), np.int64) if indices is None else indices
    fixed = file_sampler.create_triplets(indices, records, run_relevance, level)
    return records, [fixed], None


def _draw_from_folder(
    options: argparse.Namespace,
) -> "tuple[Records, Iterable[Groups], None]":
    """Returns the records of a folder and batches of triplets."""
    import numpy as np

    from deeprank_jax.data.sources import folder
    from deeprank_jax.progress import Bar
    from deeprank_jax.sampling import file_sampler

    root = pathlib.Path(options.input_directory).absolute()
    splits = folder.create_records(str(root))
    parts = [splits[name] for name in splits if options.split in (None, name)]
    names = [str(root / part.describe(i)) for part in parts for i in range(len(part))]
    labels = np.concatenate([part.labels for part in parts])
    pool = dataclasses.replace(parts[0], labels=labels, describe=names.__getitem__)
    batches = file_sampler.draw_for_every_record(
        pool,
        options.num_pos_images or 1,
        options.num_neg_images or 1,
        seed=options.seed or 0,
    )
    return pool, Bar(batches, total=len(pool), desc="triplets", unit="image"), None
