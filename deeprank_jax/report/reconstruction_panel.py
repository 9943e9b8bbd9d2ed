"""Rows of images before and after a network restored them, for the page."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import markupsafe
import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.report import thumbnails

# Pixels of a picture, twice the displayed size for sharp screens.
_SIZE = 112


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reconstructions:
    """Pictures of some records, a row for each step from image to reconstruction.

    Attributes:
      indices: `[n]` int, indices of the records.
      rows: Pictures `[n, S, S, 3]` uint8 by title; `S` may differ between rows.
    """

    indices: np.ndarray
    rows: Mapping[str, np.ndarray]


def reconstruction_values(
    reconstructions: Reconstructions | None, records: Records
) -> dict[str, Any] | None:
    """Returns the template's values, None without reconstructions.

    Args:
      reconstructions: Rows of pictures.
      records: Records of the split that is shown.
    """
    if reconstructions is None:
        return None
    names = [records.label_name(int(index)) for index in reconstructions.indices]
    return {
        "rows": [
            {
                "title": title,
                "pictures": [
                    {
                        "src": markupsafe.Markup(thumbnails.encode_image(picture)),
                        "alt": f"{name}, {title}",
                    }
                    for name, picture in zip(
                        names,
                        thumbnails.resize_thumbnails(pictures, _SIZE),
                        strict=True,
                    )
                ],
            }
            for title, pictures in reconstructions.rows.items()
        ],
    }
