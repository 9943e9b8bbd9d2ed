"""Writes the embeddings of images as a Parquet table.

For example:
  deeprank embed photos --model=model --out=photos.parquet
"""

import argparse

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser)
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH, required=True,
        help="table to write, .parquet",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_model(options.model)
    arguments.check_out(options.out, (".parquet",), [options.source])


def run(options: argparse.Namespace) -> Result:
    """Embeds the images."""
    from deeprank_jax.inference import embedding_table

    model, records = arguments.open_images(options)
    num, num_bad = embedding_table.embed_to_file(model, records, options.out)
    dim = model.embedding_dim
    text = f"Wrote {num:,} embeddings of {dim} numbers to {options.out}."
    if num_bad:
        text += (
            f"\n{num_bad:,} images could not be read; {options.out}.bad.csv gives the "
            "reasons."
        )
    values = {
        "out": options.out,
        "embeddings": num,
        "embedding_dim": dim,
        "unreadable": num_bad,
    }
    return Result(values, text)
