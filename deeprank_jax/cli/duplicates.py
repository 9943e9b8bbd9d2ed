"""Finds copies among images.

Of each group the first has the most pixels, or else the largest file: keep it. The
distance of the others to it is that of their embeddings.

For example:
  deeprank duplicates photos --model=model --out=copies.html
"""

import argparse

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser)
    parser.add_argument(
        "--max_distance", metavar="DISTANCE", type=arguments.distance,
        help="largest squared distance between the embeddings of copies; without it, "
        "the model's calibrated distances of embeddings and pixels count",
    )  # fmt: skip
    arguments.add_picture(parser, table=True)


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_model(options.model)
    arguments.check_out(options.out, (*arguments.PICTURES, ".csv"), [options.source])


def run(options: argparse.Namespace) -> Result:
    """Finds the copies."""
    from deeprank_jax.cli import groups as groups_lib

    model, records = arguments.open_images(options)
    groups = model.duplicates(records, max_distance=options.max_distance)
    title = (
        f"{groups.num_copies:,} of {groups.num_images:,} images are copies of others "
        f"within {groups.max_distance:.4f}"
    )
    if groups:
        title += "; of each group the largest comes first, to keep"
    values = {"copies": groups.num_copies}
    return groups_lib.show_groups(options.out, records, groups, title, values)
