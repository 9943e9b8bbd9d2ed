"""Groups of one training step: an anchor with its positives and negatives."""

from collections.abc import Mapping
import dataclasses
from typing import Self

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of one step; anchor, `P` positives and `N` negatives on axis 1.

    Attributes:
      step: Step that the groups were drawn for.
      indices: `[B, 1 + P + N]` int64, indices of records.
      attributes: `[B, 1 + P + N, A]`, attributes of the records.
      relevance: `[B, P + N]` float64, relevance of positives and negatives to the
        anchor; 0 for an out-of-class negative.
      in_class: `[B, N]` bool, True for a negative of the anchor's category.
      counts: Counts of draws that had to be replaced, by cause; see `TripletSampler`.
      gauges: Further metrics, e.g. the fill of the buffers.
    """

    step: int
    indices: np.ndarray
    attributes: np.ndarray
    relevance: np.ndarray
    in_class: np.ndarray
    counts: dict[str, int]
    gauges: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def num_positives(self) -> int:
        """Returns the number of positives of each group."""
        return self.relevance.shape[1] - self.in_class.shape[1]

    def take(self, source: np.ndarray, num_bad: int) -> Self:
        """Returns the groups at `source`.

        Args:
          source: `[B]` ints, places in this batch.
          num_bad: Number of groups that replace one with an unreadable image.
        """
        return dataclasses.replace(
            self,
            indices=self.indices[source],
            attributes=self.attributes[source],
            relevance=self.relevance[source],
            in_class=self.in_class[source],
            counts={**self.counts, "bad_image": num_bad},
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays that the train step needs beside the images."""
        return {"attributes": self.attributes}

    def metrics(self) -> dict[str, float]:
        """Returns metrics of the draw by the names that they are logged under."""
        negatives = {}
        if self.in_class.size:
            inside = int(np.sum(self.in_class))
            negatives = {
                "sampler_negatives/in_class": inside,
                "sampler_negatives/out_of_class": self.in_class.size - inside,
            }
        return {
            **negatives,
            **{f"sampler_failures/{cause}": n for cause, n in self.counts.items()},
            **{
                f"buffers/{name.removeprefix('buffer_')}": value
                for name, value in self.gauges.items()
            },
        }
