"""Output of commands whose result is groups of images."""

from collections.abc import Mapping

from deeprank_jax.cli import sheets
from deeprank_jax.cli.output import Result, format_table, wrote
from deeprank_jax.data.records import Records
from deeprank_jax.inference.results import ImageGroup, ImageGroups


def show_groups(
    out: str | None,
    records: Records,
    groups: ImageGroups,
    title: str,
    values: Mapping[str, object] | None = None,
) -> Result:
    """Writes groups of images as a picture or a table, and returns the result.

    Args:
      out: Path of the picture or table; None to only print.
      records: Records of the images.
      groups: Groups of images.
      title: Summary of the groups, without full stop.
      values: Further values of the result.
    """
    lines = [f"{title}."]
    if out is None:
        lines = [format_table(*_rows(groups)), *lines]
    elif out.endswith(".csv"):
        sheets.write_csv(out, *_rows(groups))
        lines.append(wrote(out))
    else:
        sheets.write_groups(out, title, groups, sheets.create_reader(records))
        lines.append(wrote(out))
    images = [[_values(group, i) for i in range(len(group))] for group in groups]
    result = {
        "images": groups.num_images,
        "max_distance": groups.max_distance,
        **(values or {}),
        "groups": images,
    }
    return Result(result, "\n".join(lines))


def _rows(groups: ImageGroups) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns the names of columns and the rows of a table of groups."""
    if not any(group.distances for group in groups):
        return ("group", "label", "path"), [
            (number, label, path)
            for number, group in enumerate(groups, 1)
            for label, path in zip(group.labels, group.paths, strict=True)
        ]
    return ("group", "keep", "distance", "label", "path"), [
        (number, "" if i else "keep", f"{group.distances[i]:.4f}", label, path)
        for number, group in enumerate(groups, 1)
        for i, (label, path) in enumerate(zip(group.labels, group.paths, strict=True))
    ]


def _values(group: ImageGroup, place: int) -> dict[str, object]:
    """Returns an image of a group as values for `--json`."""
    values: dict[str, object] = {
        "label": group.labels[place],
        "path": group.paths[place],
    }
    if group.distances:
        values |= {"keep": place == 0, "distance": group.distances[place]}
    return values
