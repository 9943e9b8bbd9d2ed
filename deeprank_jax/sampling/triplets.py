"""Triplets of one training step."""

from collections.abc import Mapping
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triplets:
    """The triplets of one step; anchor, positive and negative on axis 1.

    Attributes:
      step: Step that the triplets were drawn for.
      indices: `[B, 3]` int64, indices of records.
      attributes: `[B, 3, A]`, attributes of the records.
      relevance: `[B, 2]` float64, relevance of the positive and of the negative to
        the anchor; 0 for an out-of-class negative.
      in_class: `[B]` bool, True for a negative of the anchor's category.
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

    def take(self, source: np.ndarray, num_bad: int) -> "Triplets":
        """Returns the triplets at `source`.

        Args:
          source: `[B]` ints, places in this batch.
          num_bad: Number of triplets that replace one with an unreadable image.
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
        inside = int(np.sum(self.in_class))
        return {
            "sampler_negatives/in_class": inside,
            "sampler_negatives/out_of_class": len(self.in_class) - inside,
            **{f"sampler_failures/{cause}": n for cause, n in self.counts.items()},
            **{
                f"buffers/{name.removeprefix('buffer_')}": value
                for name, value in self.gauges.items()
            },
        }
