"""Output of commands whose result is groups of images."""

from collections.abc import Mapping

from deeprank_jax.cli import sheets
from deeprank_jax.cli.output import Result, format_table, wrote
from deeprank_jax.data.records import Records
from deeprank_jax.inference.results import ImageGroups


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
    names = ("group", "label", "path")
    rows = [
        (number, label, path)
        for number, group in enumerate(groups, 1)
        for label, path in zip(group.labels, group.paths, strict=True)
    ]
    if out is not None and out.endswith(".csv"):
        sheets.write_csv(out, names, rows)
        lines = [wrote(out), f"{title}."]
    else:
        lines = [format_table(names, rows), f"{title}."]
    if out is not None and not out.endswith(".csv"):
        sheets.write_groups(out, title, groups, sheets.create_reader(records))
        lines.append(wrote(out))
    images = [
        [
            {"label": label, "path": path}
            for label, path in zip(group.labels, group.paths, strict=True)
        ]
        for group in groups
    ]
    result = {
        "images": groups.num_images,
        "max_distance": groups.max_distance,
        **(values or {}),
        "groups": images,
    }
    return Result(result, "\n".join(lines))
