"""Embeds a split once, for every evaluator and the report to share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

EmbedFn = Callable[[np.ndarray], Any]
Batches = Iterable[Mapping[str, np.ndarray]]


def embed_split(
    embed_fn: EmbedFn,
    batches: Batches,
    num_records: int,
    *,
    progress: Callable[[Batches], Batches] = iter,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeds the records of a split.

    The trained model, the untrained model and hand-made descriptors go through this
    one function, so that they see the same images.

    Args:
      embed_fn: maps `images [B, H, W, 3]` uint8 to embeddings `[B, D]`.
      batches: dicts of `images`, `indices [B]` int, the records they show, and `mask
        [B]` bool, False for padding and for an image that could not be read.
      num_records: `N`, how many records the split has.
      progress: wraps the batches, e.g. in a progress bar.

    Returns:
      Embeddings `[N, D]` float32 and `ok [N]` bool. A record that no batch showed, or
      whose embedding is not finite, is not ok and its row is 0. A split of which
      nothing could be read gives embeddings `[N, 0]`.
    """
    embeddings = np.zeros((num_records, 0), np.float32)
    ok = np.zeros(num_records, bool)
    for batch in progress(batches):
        mask = np.asarray(batch["mask"], bool)
        if not mask.any():
            continue
        rows = np.asarray(embed_fn(batch["images"]), np.float32)[mask]
        if not embeddings.shape[1]:
            embeddings = np.zeros((num_records, rows.shape[1]), np.float32)
        finite = np.isfinite(rows).all(axis=1)
        seen = np.asarray(batch["indices"])[mask][finite]
        embeddings[seen] = rows[finite]
        ok[seen] = True
    return embeddings, ok
