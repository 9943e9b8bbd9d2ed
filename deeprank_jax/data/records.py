"""What the dataset holds: one split's records, known by their index."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """One split: labels in memory, images read by index when they are needed.

    Attributes:
      name: the split, e.g. `"emoji/train"`, for messages.
      labels: `[N, L]` int32, a label per level from coarse to fine. A label
        stands for the whole path down to its level, so two records that share the
        label of a level share those of all coarser levels.
      attributes: `[N, A]` ints or floats, what the run's relevance compares; the
        labels until `relevance.attach` puts others in their place.
      level_names: the `L` levels, e.g. `("category", "subcategory", "emoji")`.
      label_names: for each level the name of each label.
      read: maps an index to the encoded image (`bytes`) or a decoded uint8
        `[H, W]` or `[H, W, C]`; may raise `OSError`.
      describe: maps an index to what a person would look for, e.g. a file's path;
        tables and vector files know the record by it.
      columns: further labels by name, each `[N]` int32, a number standing for the same
        in every split; e.g. `{"parity": ...}`.
    """

    name: str
    labels: np.ndarray
    level_names: tuple[str, ...]
    label_names: tuple[tuple[str, ...], ...]
    read: Callable[[int], bytes | np.ndarray]
    describe: Callable[[int], str]
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    attributes: np.ndarray = None  # pyrefly: ignore[bad-assignment]

    def __post_init__(self):
        """Takes the labels for attributes where no others are given."""
        if self.attributes is None:
            object.__setattr__(self, "attributes", self.labels)

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self.labels)

    def label_name(self, index: int, level: int = -1) -> str:
        """Returns the name of a record's label, by default of the finest level."""
        return self.label_names[level][self.labels[index, level]]

    # Every save asks for it; the cache is in `__dict__`, which frozen leaves open.
    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns a short hash of labels and descriptions, the same for the same."""
        digest = hashlib.sha256(self.labels.tobytes())
        for index in range(len(self)):
            digest.update(self.describe(index).encode("utf-8", "backslashreplace"))
            # No description holds it, so that no two lists are one text.
            digest.update(b"\0")
        return f"{len(self)}-{digest.hexdigest()[:12]}"
