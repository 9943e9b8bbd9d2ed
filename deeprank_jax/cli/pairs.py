r"""Draws pairs of images, half of them of one class, to try out training on pairs.

  deeprank pairs --config=emoji --num=5000 --out=pairs.csv

The file has the columns `a,b,similar`, the images named as in a file of triplets. No
pair is in it twice, and none has images of two splits. Train on it, without any class,
by `--config=pairs` or `--config=emoji_pairs`.
"""

import argparse

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result
from deeprank_jax.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_config(parser)
    parser.add_argument(
        "--split", choices=("train", "validation", "test"),
        help="split to draw from; all by default, --num pairs from each",
    )  # fmt: skip
    parser.add_argument(
        "--num", type=arguments.at_least(2), default=5000,
        help="largest number of pairs of a split",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=arguments.at_least(0), default=0, help="seed of the draws"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH, default="pairs.csv",
        help="CSV file to write",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Checks the path."""
    arguments.check_out(options.out, (".csv",))


def run(options: argparse.Namespace) -> Result:
    """Draws the pairs and writes them."""
    import numpy as np

    from deeprank_jax import data
    from deeprank_jax.sampling import pair_file
    from deeprank_jax.similarities.pairs import LabelledPairs

    config = arguments.load_config(options)
    splits = data.create_records(config.data)
    names = [options.split] if options.split else [*splits]
    records = [data.select_split(splits, name) for name in names]
    rng = np.random.default_rng(options.seed)
    draws = []
    for part in records:
        try:
            labelled = LabelledPairs(part.labels[:, -1])
        except DataError as error:
            raise DataError(f"{part.name}: {error}") from error
        draws.append(labelled.draw_distinct(rng, options.num))
    pairs, is_similar = zip(*draws, strict=True)
    pair_file.write_pairs(options.out, records, pairs, is_similar)
    num, num_similar = (sum(map(count, is_similar)) for count in (len, np.sum))
    return Result(
        {"out": options.out, "pairs": num, "similar": int(num_similar)},
        f"Wrote {num:,} pairs, {num_similar:,} of them similar, to {options.out}.",
    )
