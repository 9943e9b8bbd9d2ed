"""Writes the embeddings of images as a Parquet table.

For example:
  deeprank embed photos --model=model --out=photos.parquet
"""

import argparse

from deeprank_jax import logs
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
    num_text = logs.counted(num, "embedding")
    text = f"Wrote {num_text} of {dim} numbers to {options.out}."
    if num_bad:
        text += (
            f"\n{logs.counted(num_bad, 'image')} could not be read; "
            f"{options.out}.bad.csv gives the reasons."
        )
    unlabelled = sum(not records.label_name(i) for i in range(len(records)))
    if unlabelled:
        text += f"\n{unlabelled:,} of {len(records):,} images have no label."
    values = {
        "out": options.out,
        "embeddings": num,
        "embedding_dim": dim,
        "unreadable": num_bad,
        "unlabelled": unlabelled,
    }
    return Result(values, text)
