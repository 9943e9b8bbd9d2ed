"""Images of records for the page, with names and frames that show relevance.

The returned dicts are the arguments of the template's macro `picture`.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import markupsafe
import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.report import links, query_panel
from deeprank_jax.report import thumbnails as thumbnails_lib
from deeprank_jax.report.number_format import format_number

# Pixels of a thumbnail in a panel, twice the displayed size for sharp screens.
_THUMBNAIL = 112


class Pictures:
    """Images of a split's records, as the template shows them."""

    def __init__(
        self,
        records: Records,
        thumbnails: thumbnails_lib.Thumbnails,
        grades: query_panel.Grades,
        folder: pathlib.Path,
    ):
        """Creates the images of one split.

        Args:
          records: Records of the split.
          thumbnails: Function from record indices `[n]` to uint8 `[n, S, S, 3]`.
          grades: Grades of the relevances.
          folder: Folder of the page, which links to the files of the images.
        """
        self._records = records
        self._thumbnails = thumbnails
        self._grades = grades
        self._folder = folder

    def link(self, index: int) -> str:
        """Returns the address of a record's file, "" if it has none of its own."""
        path = self._records.path
        return "" if path is None else links.link_to(path(index), self._folder)

    def images(self, indices: np.ndarray) -> list[dict[str, Any]]:
        """Returns source, name, title and link of each record's image."""
        pictures = self._thumbnails(np.asarray(indices))
        size = min(_THUMBNAIL, *pictures.shape[1:3])
        pictures = thumbnails_lib.resize_thumbnails(pictures, size)
        return [
            {
                "src": markupsafe.Markup(thumbnails_lib.encode_image(picture)),
                "name": self._records.label_name(int(index)),
                "title": describe(self._records, int(index)),
                "href": self.link(int(index)),
            }
            for index, picture in zip(indices, pictures, strict=True)
        ]

    def framed(
        self, indices: np.ndarray, relevance: np.ndarray
    ) -> list[dict[str, Any]]:
        """Returns images with the frame of their relevance."""
        images = self.images(indices)
        for image, value in zip(images, relevance, strict=True):
            grade = int(self._grades.of(value))
            image["slot"] = thumbnails_lib.frame_slot(grade, self._grades)
            image["pips"] = thumbnails_lib.pips(grade, self._grades)
            image["grade"] = self._grades.names[grade]
            image["title"] += f"\nrelevance {format_number(value)}"
        return images

    def rows(self, rows: Sequence[query_panel.Row]) -> list[dict[str, Any]]:
        """Returns each query with its neighbours."""
        panel = []
        for row in rows:
            neighbors = self.framed(row.neighbors, row.relevance)
            for neighbor, distance in zip(neighbors, row.distances, strict=True):
                neighbor["title"] += f"\nsquared distance {distance:.3f}"
            panel.append(
                {
                    "query": self.images(np.array([row.query]))[0],
                    "neighbors": neighbors,
                    "precision": row.average_precision,
                }
            )
        return panel


def describe(records: Records, index: int) -> str:
    """Returns a record's finest label, its coarser ones, and its source."""
    levels = range(records.labels.shape[1])
    labels = [records.label_name(index, level) for level in reversed(levels)]
    return f"{' · '.join(labels)}\n{records.describe(index)}"
