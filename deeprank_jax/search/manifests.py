"""Manifest of an index: its committed files, and the schema of all descriptions."""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

from deeprank_jax import files

FORMAT = 1
METRICS = ("squared_euclidean", "cosine")
KINDS = ("auto", "exact", "hnsw")
_MAX_DIM, _MAX_ROWS = 65_536, 2**40
_NAMES = {"batch": (".json", ".npy"), "deleted": (".npy",)}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A committed batch or deletion, with the checksums of its files by suffix."""

    name: str
    num_rows: int
    sha256: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Contents of `index.json`: everything that is committed."""

    dim: int
    model_fingerprint: str
    metric: str
    # The kind of the creation, which may be "auto", and the kind in use.
    asked_kind: str
    kind: str
    next_number: int = 0
    batches: tuple[Entry, ...] = ()
    deletions: tuple[Entry, ...] = ()
    format: int = FORMAT

    @property
    def num_rows(self) -> int:
        """Returns the number of rows of all batches, deleted ones too."""
        return sum(batch.num_rows for batch in self.batches)

    @property
    def num_deleted(self) -> int:
        """Returns the number of deleted rows."""
        return sum(deletion.num_rows for deletion in self.deletions)


def check_manifest(manifest: Manifest) -> None:
    """Checks the values of a manifest, which may be a stranger's.

    Raises:
      ValueError: A value is not what it should be.
    """
    for name, high in (("dim", _MAX_DIM), ("next_number", _MAX_ROWS)):
        _check_whole(name, getattr(manifest, name), int(name == "dim"), high)
    for name, choices in (
        ("metric", METRICS),
        ("asked_kind", KINDS),
        ("kind", KINDS[1:]),
    ):
        value = getattr(manifest, name)
        if value not in choices:
            raise ValueError(
                f"{name} is {value!r:.60}, expected one of {', '.join(choices)}"
            )
    if not isinstance(manifest.model_fingerprint, str):
        raise ValueError("model_fingerprint is no text")
    for stem, entries in (("batch", manifest.batches), ("deleted", manifest.deletions)):
        for entry in entries:
            _check_entry(entry, stem)
        if len({entry.name for entry in entries}) < len(entries):
            raise ValueError(f"it lists a {stem} twice")
    if manifest.num_deleted > manifest.num_rows:
        raise ValueError("it deletes more rows than it has")


def parse_names(content: bytes, entry: Entry) -> Mapping[str, Sequence[str]]:
    """Returns the ids and labels of a batch.

    Args:
      content: Content of the batch's JSON file.
      entry: Entry of the batch.

    Raises:
      ValueError: It does not hold an id and a label for each row.
    """
    names = files.parse_json(content)
    for key in ("ids", "labels"):
        values = names.get(key) if isinstance(names, dict) else None
        if not isinstance(values, list) or len(values) != entry.num_rows:
            raise ValueError(f"its {key} are not a list of {entry.num_rows:,}")
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"its {key} are not all texts")
    return names


def _check_entry(entry: Entry, stem: str) -> None:
    # A name that led elsewhere would let a file of any folder be read.
    if not re.fullmatch(rf"{stem}-\d{{8,16}}", _text(entry.name)):
        raise ValueError(f"it lists the file {entry.name!r:.60}, which is no {stem}")
    _check_whole("num_rows", entry.num_rows, 0, _MAX_ROWS)
    sums = entry.sha256
    if not isinstance(sums, dict) or sorted(sums) != list(_NAMES[stem]):
        raise ValueError(f"{entry.name} has no checksums of its files")
    if not all(re.fullmatch("[0-9a-f]{64}", _text(x)) for x in sums.values()):
        raise ValueError(f"{entry.name} has checksums that are none")


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(
            f"{name} is {value!r:.60}, expected a whole number from {low} to {high:,}"
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
