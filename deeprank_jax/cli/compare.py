"""Compares two images: their distance and whether they are similar.

For example:
  deeprank compare one.jpg other.jpg --model=model --out=pair.png --heat_map
"""

import argparse
import dataclasses

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result, wrote


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "images", nargs=2, metavar="IMAGE", type=arguments.PATH,
        help="path of an image",
    )  # fmt: skip
    arguments.add_model(parser)
    arguments.add_picture(parser)
    arguments.add_heat_map(parser)


def check(options: argparse.Namespace) -> None:
    """Checks the options and paths."""
    arguments.check_heat_map(options)
    arguments.check_model(options.model)
    arguments.check_out(options.out, arguments.PICTURES, options.images)


def run(options: argparse.Namespace) -> Result:
    """Compares the images."""
    from deeprank_jax.cli import sheets
    from deeprank_jax.inference.model import Model

    model = Model(options.model)
    comparison = model.compare(*options.images)
    lines = [str(comparison)]
    if options.out:
        sheets.write_pair(
            options.out, options.images, comparison, model if options.heat_map else None
        )
        lines.append(wrote(options.out))
    values = {
        "images": options.images,
        **dataclasses.asdict(comparison),
        "is_similar": comparison.is_similar,
    }
    return Result(values, "\n".join(lines))
