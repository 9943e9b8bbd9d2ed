"""Sorts images by their similarity to one image.

For example:
  deeprank rank photos --model=model --image=query.jpg --out=ranked.html
"""

import argparse

from deeprank_jax import logs
from deeprank_jax.cli import arguments, output
from deeprank_jax.cli.output import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser)
    parser.add_argument(
        "--image", metavar="IMAGE", type=arguments.PATH, required=True,
        help="image that the others are compared with",
    )  # fmt: skip
    arguments.add_include_query(parser)
    arguments.add_picture(parser, table=True)
    arguments.add_heat_map(parser)


def check(options: argparse.Namespace) -> None:
    """Checks the options and paths."""
    arguments.check_heat_map(options)
    arguments.check_model(options.model)
    arguments.check_out(
        options.out, (*arguments.PICTURES, ".csv"), [options.image, options.source]
    )


def run(options: argparse.Namespace) -> Result:
    """Ranks the images."""
    from deeprank_jax.cli import sheets

    model, records = arguments.open_images(options)
    result = model.search(
        options.image, records, k=None, include_query=options.include_query
    )
    names, rows = output.hit_rows(result.hits)
    values = {
        "image": options.image,
        "left_out": result.left_out,
        "is_unfamiliar": result.is_unfamiliar,
        "hits": output.hit_values(result.hits),
    }
    title = f"{records.name} by similarity to {options.image}"
    lines = [output.format_table(names, rows)]
    if options.out:
        lines = [f"{logs.counted(len(result), 'image')} of {title}."]
        if options.out.endswith(".csv"):
            sheets.write_csv(options.out, names, rows)
        else:
            num = sheets.count(sheets.MAX_RANKED, len(result), "images, nearest first")
            sheets.write_hits(
                options.out,
                title,
                options.image,
                result,
                heading=num + "{legend}",
                read=sheets.create_reader(records),
                heat_map_model=model if options.heat_map else None,
            )
        lines.append(output.wrote(options.out))
    return Result(values, "\n".join([*lines, *output.hit_notes(result)]))
