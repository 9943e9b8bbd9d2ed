"""Finds the images of an index that are nearest to one image.

For example:
  deeprank search query.jpg --index=photos.index --k=20 --out=found.html
"""

import argparse

from deeprank_jax.cli import arguments, output
from deeprank_jax.cli.output import Result
from deeprank_jax.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "image", metavar="IMAGE", type=arguments.PATH, help="path of an image"
    )
    parser.add_argument(
        "--index", metavar="DIR", type=arguments.PATH, required=True,
        help="folder of an index written by `deeprank index`",
    )  # fmt: skip
    arguments.add_model(parser, required=False)
    parser.add_argument(
        "--k", type=arguments.at_least(1), default=10, help="number of images to find"
    )
    parser.add_argument(
        "--label", action="append",
        help="search only images with this label; may be repeated",
    )  # fmt: skip
    arguments.add_include_query(parser)
    arguments.add_picture(parser)


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_index(options.index)
    arguments.check_model(options.model)
    arguments.check_out(options.out, arguments.PICTURES, [options.image])


def run(options: argparse.Namespace) -> Result:
    """Searches the index."""
    from deeprank_jax.inference.index import Index
    from deeprank_jax.logs import escaped
    from deeprank_jax.registry import did_you_mean, list_names

    index = Index.open(options.index, options.model)
    for label in options.label or ():
        if label not in (names := sorted(index.label_names())):
            hint = did_you_mean(label, iter(names)) or (
                f"; its labels are {list_names(names)}"
                if names
                else "; none of its images has a label"
            )
            raise DataError(
                f"{options.index} holds no image with the label {label!r}{hint}."
            )
    result = index.search(
        options.image,
        options.k,
        labels=options.label,
        include_query=options.include_query,
    )
    summary = ", ".join(
        f"{escaped(label) or 'no label'} {share:.0%}"
        for label, share in result.votes[:5]
    )
    names, rows = output.hit_rows(result.hits)
    lines = [output.format_table(names, rows), f"Labels by vote: {summary or 'none'}."]
    text = "\n".join([*lines, *output.hit_notes(result)])
    if options.out:
        from deeprank_jax.cli import sheets

        heading = f"nearest{{legend}}; labels by vote: {summary or 'none'}"
        sheets.write_hits(
            options.out,
            f"Nearest to {options.image}",
            options.image,
            result,
            heading=heading,
            read=index.create_reader(),
        )
        text += f"\n{output.wrote(options.out)}"
    values = {
        "image": options.image,
        "hits": output.hit_values(result.hits),
        "threshold": result.threshold,
        "left_out": result.left_out,
        "is_unfamiliar": result.is_unfamiliar,
        "votes": [{"label": label, "share": share} for label, share in result.votes],
    }
    return Result(values, text)
