"""Triplets of one training step."""

import dataclasses

from deeprank_jax.sampling.groups import Groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triplets(Groups):
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

    @property
    def num_positives(self) -> int:
        """Returns 1."""
        return 1
