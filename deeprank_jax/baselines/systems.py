"""Systems of the paper's table, as embeddings of records.

Rows are the records of all splits in turn.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from deeprank_jax.data.records import Records


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """A row of the table, which ranks images by similarity.

    Attributes:
      embeddings: `[N, D]` float32, ranked by squared Euclidean distance.
      ok: `[N]` bool, the records that could be read.
      queries: Optional `[N, D]` float32, the records as queries, for a similarity that
        is not symmetric; None for the embeddings.
    """

    embeddings: np.ndarray
    ok: np.ndarray
    queries: np.ndarray | None = None


def rows_of(splits: Mapping[str, Records]) -> dict[str, slice]:
    """Returns the rows of each split."""
    ends = np.cumsum([len(records) for records in splits.values()])
    starts = ends - [len(records) for records in splits.values()]
    return {
        name: slice(int(start), int(end))
        for name, start, end in zip(splits, starts, ends, strict=True)
    }


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Returns rows `[N, D]` float32 of length 1; those of length 0 stay so."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(norms > 0, norms, 1.0)).astype(np.float32)
