"""Finds the two labels between which another label lies.

A label is the direction of the mean of its embeddings. It may be one that the model
never saw in training: a zebra lies between horses and tigers.

For example:
  deeprank between animals --model=efficientnet_lite0 --label=zebra --out=zebra.png
"""

import argparse
from typing import TYPE_CHECKING

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result, format_table, wrote

if TYPE_CHECKING:
    from deeprank_jax.inference.between import LabelPlace

_COLUMNS = ("rank", "first", "second", "off the arc", "from first", "from second",
            "first to second")  # fmt: skip
_SUFFIXES = (".png", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser)
    parser.add_argument(
        "--label", metavar="LABEL", required=True, help="label that is placed"
    )
    parser.add_argument(
        "--ends", metavar="LABEL,LABEL", type=arguments.comma_separated, default=[],
        help="two labels, if only the arc between them counts",
    )  # fmt: skip
    parser.add_argument(
        "--num", metavar="NUM", type=arguments.at_least(1), default=5,
        help="largest number of pairs that are printed",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH,
        help="picture of the three labels in the plane of the arc, .png or .svg",
    )  # fmt: skip
    parser.set_defaults(usage_error=parser.error)


def check(options: argparse.Namespace) -> None:
    """Checks the labels and paths."""
    if len(options.ends) not in (0, 2):
        options.usage_error("--ends takes two labels, separated by a comma")
    arguments.check_model(options.model)
    arguments.check_out(options.out, _SUFFIXES, [options.source])


def run(options: argparse.Namespace) -> Result:
    """Places the label."""
    from deeprank_jax.inference import between

    model, records = arguments.open_images(options)
    place = between.place_label(
        model, records, options.label, ends=options.ends, num=options.num
    )
    rows = [
        (
            rank,
            *(place.names[end] for end in arc.ends),
            *(f"{x:.1f}°" for x in (arc.off_arc, *arc.end_angles, arc.arc_angle)),
        )
        for rank, arc in enumerate(place.arcs, 1)
    ]
    nearest = f"{place.nearest} (cosine {place.nearest_cosine:.3f})"
    ends = (
        f"not between {' and '.join(options.ends)}"
        if options.ends
        else ("between no two labels")
    )
    lines = [f"{place.label} lies {ends}; the nearest label is {nearest}."]
    if options.out is not None and not rows:
        lines.append(f"{options.out} was not written: there is no arc to draw.")
    if rows:
        first, second = rows[0][1:3]
        cosine = place.arcs[0].cosine
        lines = [
            format_table(_COLUMNS, rows),
            f"{place.label} lies between {first} and {second}, {rows[0][3]} off the "
            f"arc (cosine {cosine:.3f}); the nearest single label is {nearest}.",
        ]
        if options.out is not None:
            from deeprank_jax.report import between_picture

            between_picture.write_picture(options.out, place, records)
            lines.append(wrote(options.out))
    return Result(_values(place), "\n".join(lines))


def _values(place: "LabelPlace") -> dict[str, object]:
    """Returns the place as values for `--json`."""
    return {
        "label": place.label,
        "nearest": place.nearest,
        "nearest_cosine": place.nearest_cosine,
        "between": [
            {
                "ends": [place.names[end] for end in arc.ends],
                "cosine": arc.cosine,
                "end_cosines": arc.end_cosines,
                "arc_cosine": arc.arc_cosine,
                "off_arc_degrees": arc.off_arc,
                "end_degrees": arc.end_angles,
                "arc_degrees": arc.arc_angle,
            }
            for arc in place.arcs
        ],
    }
