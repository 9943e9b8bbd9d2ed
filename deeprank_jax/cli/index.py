"""Makes images searchable, or brings an index up to date.

For example:
  deeprank index photos --model=model --out=photos.index
"""

import argparse
import dataclasses

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser)
    parser.add_argument(
        "--out", metavar="DIR", type=arguments.PATH, required=True,
        help="folder of the index, created if it is not there",
    )  # fmt: skip
    parser.add_argument(
        "--kind", choices=("auto", "exact", "hnsw"),
        help="way of searching; a new index is auto by default, which chooses by the "
        "number of images",
    )  # fmt: skip
    parser.add_argument(
        "--metric", choices=("squared_euclidean", "cosine"),
        help="distance metric; squared_euclidean by default",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_model(options.model)
    arguments.check_writable(options.out)


def run(options: argparse.Namespace) -> Result:
    """Adds the images to the index, which is created if it is not there."""
    from deeprank_jax.inference.index import index_images
    from deeprank_jax.inference.model import Model
    from deeprank_jax.logs import counted

    index, changes = index_images(
        options.out,
        Model(options.model),
        options.source,
        metric=options.metric,
        kind=options.kind,
        data_dir=options.data_dir,
        label_feature=options.label_feature,
    )
    text = f"{options.out}: {counted(changes.added, 'image')} added"
    if changes.updated:
        text += f", {changes.updated:,} updated"
    if changes.removed:
        text += f", {changes.removed:,} removed"
    text += f", {len(index):,} in all"
    unlabelled = index.num_unlabelled
    if unlabelled:
        text += f", {unlabelled:,} of them without a label"
    text += f" ({index.kind}, {index.metric})."
    if changes.unreadable:
        num = counted(changes.unreadable, "image")
        text += f"\n{num} could not be read; the log gives the reasons."
    values = {
        "index": options.out, **dataclasses.asdict(changes), "images": len(index),
        "unlabelled": unlabelled, "kind": index.kind, "metric": index.metric,
    }  # fmt: skip
    return Result(values, text)
