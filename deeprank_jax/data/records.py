"""What the dataset holds: one split's records, known by their index."""

from collections.abc import Callable
import dataclasses
import functools
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """One split: labels in memory, images read by index when they are needed.

    Attributes:
      name: the split, e.g. `"emoji/train"`, for messages.
      attributes: `[N, L]` int32, a label per level from coarse to fine. A label
        stands for the whole path down to its level, so two records that share the
        label of a level share those of all coarser levels.
      level_names: the `L` levels, e.g. `("category", "subcategory", "emoji")`.
      label_names: for each level the name of each label.
      read: maps an index to the encoded image (`bytes`) or a decoded uint8
        `[H, W]` or `[H, W, C]`; may raise `OSError`.
      describe: maps an index to what a person would look for, e.g. a file's path.
    """

    name: str
    attributes: np.ndarray
    level_names: tuple[str, ...]
    label_names: tuple[tuple[str, ...], ...]
    read: Callable[[int], bytes | np.ndarray]
    describe: Callable[[int], str]

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self.attributes)

    def label_name(self, index: int, level: int = -1) -> str:
        """Returns the name of a record's label, by default of the finest level."""
        return self.label_names[level][self.attributes[index, level]]

    # Every save asks for it; the cache is in `__dict__`, which frozen leaves open.
    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns a short hash of labels and descriptions, the same for the same."""
        digest = hashlib.sha256(self.attributes.tobytes())
        for index in range(len(self)):
            digest.update(self.describe(index).encode("utf-8", "backslashreplace"))
            # No description holds it, so that no two lists are one text.
            digest.update(b"\0")
        return f"{len(self)}-{digest.hexdigest()[:12]}"
