"""Records of one split: labels, descriptions and access to images."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """One split, with labels in memory and images read by index.

    Attributes:
      name: Name of the split in messages, e.g. `"emoji/train"`.
      labels: `[N, L]` int32, one label per level, from coarse to fine. A label stands
        for the whole path down to its level, so records that share the label of a
        level share those of all coarser levels.
      attributes: `[N, A]`, numbers that the relevance compares; equal to the labels
        until `relevance.attach` replaces them.
      level_names: Names of the `L` levels, e.g. `("category", "subcategory", "emoji")`.
      label_names: Names of the labels, for each level.
      read: Function from an index to the encoded image (`bytes`) or a decoded uint8
        `[H, W]` or `[H, W, C]`; may raise `OSError`.
      describe: Function from an index to the record's id, e.g. the path of its file,
        which identifies it in tables and vector files.
      columns: Further labels by name, each `[N]` int32; a number has the same meaning
        in every split.
      column_names: Names of the labels of columns, by number; a column may have none.
      path: Function from an index to the path of the record's file; None if records are
        no files of their own.
      level_titles: Titles of the `L` levels for people, as in "same folder"; the names
        by default.
      caveat: Sentence on what metrics of these records do not say; may be empty.
    """

    name: str
    labels: np.ndarray
    level_names: tuple[str, ...]
    label_names: tuple[tuple[str, ...], ...]
    read: Callable[[int], bytes | np.ndarray]
    describe: Callable[[int], str]
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    column_names: Mapping[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )
    attributes: np.ndarray = None  # pyrefly: ignore[bad-assignment]
    path: Callable[[int], str] | None = None
    level_titles: tuple[str, ...] = ()
    caveat: str = ""

    def __post_init__(self):
        """Uses the labels as attributes, and names as titles, by default."""
        if self.attributes is None:
            object.__setattr__(self, "attributes", self.labels)
        if not self.level_titles:
            object.__setattr__(self, "level_titles", self.level_names)

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self.labels)

    def label_name(self, index: int, level: int = -1) -> str:
        """Returns the name of a record's label, by default at the finest level."""
        return self.label_names[level][self.labels[index, level]]

    # Needed at every save; the cache is in `__dict__`, which `frozen` permits.
    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns a short hash of the labels and descriptions."""
        digest = hashlib.sha256(self.labels.tobytes())
        for index in range(len(self)):
            digest.update(self.describe(index).encode("utf-8", "backslashreplace"))
            # No description contains it, so different lists have different texts.
            digest.update(b"\0")
        return f"{len(self)}-{digest.hexdigest()[:12]}"
