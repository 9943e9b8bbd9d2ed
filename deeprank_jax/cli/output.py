"""Results of commands: as text for people, as JSON for programs, as CSV files."""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from deeprank_jax import files, logs
from deeprank_jax.errors import UserError

if TYPE_CHECKING:
    from deeprank_jax.inference.results import Hit, SearchResult


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of a command.

    Attributes:
      values: Values for `--json`: numbers, texts, paths, arrays, and lists and dicts of
        these.
      text: Text for people; empty if there is nothing to print.
    """

    values: object
    text: str

    def format(self, *, as_json: bool) -> str:
        """Returns the text to print, with its newline."""
        if as_json:
            return f"{json.dumps(_to_json(self.values), allow_nan=False)}\n"
        return f"{logs.escaped_lines(self.text)}\n" if self.text else ""


def prepare_stdout() -> None:
    """Lets any name be printed, characters that a terminal lacks as escapes.

    Raises:
      UserError: Standard output is closed.
    """
    if sys.stdout is None:
        raise UserError(
            "standard output is closed; send it to a file, or to /dev/null if only "
            "--out counts."
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _to_json(value: object) -> object:
    """Returns a value as JSON types; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    to_list = getattr(value, "tolist", None)  # Arrays and their scalars.
    return _to_json(to_list()) if callable(to_list) else str(value)


def format_table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns rows as text with aligned columns.

    Args:
      names: Names of the columns.
      rows: Cells of each row, one per column.
    """
    texts = [tuple(logs.escaped(str(cell)) for cell in row) for row in (names, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(names))]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in texts
    )
    return "\n".join(line.rstrip() for line in lines)


def format_csv(names: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Returns rows as the content of a CSV file, with no formula among the cells.

    Args:
      names: Names of the columns.
      rows: Cells of each row, one per column.
    """
    text = io.StringIO(newline="")
    cells = ([files.defused(str(x)) for x in row] for row in [names, *rows])
    csv.writer(text).writerows(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def hit_rows(
    hits: "Sequence[Hit]",
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns the names of columns and the rows of a table of hits."""
    rows: list[tuple[object, ...]] = [
        (rank, f"{hit.distance:.4f}", hit.label, hit.path)
        for rank, hit in enumerate(hits, 1)
    ]
    return ("rank", "distance", "label", "path"), rows


def hit_notes(result: "SearchResult") -> list[str]:
    """Returns the sentences on a search that its table does not show."""
    notes = []
    if result.left_out is not None:
        notes.append(
            f"Left out: {result.left_out}, the image itself; --include_query keeps it."
        )
    if result.is_unfamiliar:
        notes.append(
            "The image is unlike all images of training, farther than 99 % of "
            "validation: the nearest images may have nothing to do with it."
        )
    return notes


def hit_values(hits: "Sequence[Hit]") -> list[dict[str, object]]:
    """Returns hits as values for `--json`, nearest first."""
    return [{"rank": i, **dataclasses.asdict(hit)} for i, hit in enumerate(hits, 1)]


def read_json(path: pathlib.Path) -> object:
    """Returns the content of a JSON file that the command has written."""
    return files.read_json(path)


def wrote(path: object) -> str:
    """Returns the line that names a written file."""
    return f"Wrote {path}."
