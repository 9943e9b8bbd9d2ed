"""Finds images whose label is probably wrong.

These are nearer to an image of another label than to all others of their own; the
surest come first. A model that was trained on the same labels has learned the errors,
too: take one that has not, such as a pretrained network.

For example:
  deeprank label-errors photos --model=efficientnet_lite0 --out=label_errors.html
"""

import argparse
import dataclasses

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result, format_table, wrote

_COLUMNS = ("rank", "margin", "label", "nearest label", "path", "nearest path")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser)
    parser.add_argument(
        "--num", metavar="NUM", type=arguments.at_least(1), default=50,
        help="largest number of images that are printed or drawn; a .csv table has all",
    )  # fmt: skip
    arguments.add_picture(parser, table=True)


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_model(options.model)
    arguments.check_out(options.out, (*arguments.PICTURES, ".csv"), [options.source])


def run(options: argparse.Namespace) -> Result:
    """Ranks the images."""
    from deeprank_jax.cli import sheets

    model, records = arguments.open_images(options)
    label_errors = model.label_errors(records)
    rows = [
        (rank, f"{x.margin:.4f}", x.label, x.nearest_label, x.path, x.nearest_path)
        for rank, x in enumerate(label_errors, 1)
    ]
    title = (
        f"{len(rows):,} of {label_errors.num_compared:,} images are nearer to another "
        "label than to their own"
    )
    is_table = (options.out or "").endswith(".csv")
    if len(rows) > options.num and not is_table:
        title += f"; the first {options.num:,} are shown"
    lines = [f"{title}.", *_notes(label_errors.num_unlabelled, label_errors.num_alone)]
    if options.out is None:
        if rows:
            lines = [format_table(_COLUMNS, rows[: options.num]), *lines]
    elif is_table:
        sheets.write_csv(options.out, _COLUMNS, rows)
        lines.append(wrote(options.out))
    else:
        first = label_errors.images[: options.num]
        read = sheets.create_reader(records)
        sheets.write_label_errors(options.out, title, first, read)
        lines.append(wrote(options.out))
    values = {
        "images": label_errors.num_compared,
        "unlabelled": label_errors.num_unlabelled,
        "alone": label_errors.num_alone,
        "label_errors": [dataclasses.asdict(image) for image in label_errors],
    }
    return Result(values, "\n".join(lines))


def _notes(num_unlabelled: int, num_alone: int) -> list[str]:
    """Returns the sentences on images that were not ranked."""
    notes = []
    if num_unlabelled:
        notes.append(f"{num_unlabelled:,} images have no label and are left out.")
    if num_alone:
        notes.append(
            f"{num_alone:,} images are the only one of their label: nothing can be "
            "said of them."
        )
    return notes
