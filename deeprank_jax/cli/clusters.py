"""Groups images by similarity.

For example:
  deeprank clusters photos --model=model --num=20 --out=clusters.html
"""

import argparse

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result
from deeprank_jax.errors import ArtifactError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser)
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--max_distance", metavar="DISTANCE", type=arguments.distance,
        help="largest mean squared distance within a cluster; without it, the "
        "model's calibrated distance counts",
    )  # fmt: skip
    size.add_argument(
        "--num", type=arguments.at_least(1), help="number of clusters, instead"
    )
    arguments.add_picture(parser, table=True)


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_model(options.model)
    arguments.check_out(options.out, (*arguments.PICTURES, ".csv"), [options.source])


def run(options: argparse.Namespace) -> Result:
    """Groups the images."""
    from deeprank_jax.cli import groups as groups_lib

    model, records = arguments.open_images(options)
    if options.num is None and options.max_distance is None:
        if model.cluster_distance is None:
            raise ArtifactError(
                f"{options.model} has no calibrated distance for clusters: give "
                "--max_distance or --num."
            )
    groups = model.clusters(records, max_distance=options.max_distance, num=options.num)
    noun = "cluster" if len(groups) == 1 else "clusters"
    title = f"{len(groups):,} {noun} of {groups.num_images:,} images"
    return groups_lib.show_groups(options.out, records, groups, title)
