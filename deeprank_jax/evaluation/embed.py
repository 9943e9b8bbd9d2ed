"""Embedding of a split, once for all evaluators and the report."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy import typing as npt

EmbedFn = Callable[[np.ndarray], npt.ArrayLike]
Batches = Iterable[Mapping[str, np.ndarray]]


def embed_split(
    embed_fn: EmbedFn,
    batches: Batches,
    num_records: int,
    *,
    progress: Callable[[Batches], Batches] = iter,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeds the records of a split.

    The trained model, the untrained model and hand-made descriptors all go through this
    function, so that they see the same images.

    Args:
      embed_fn: Function from `images [B, H, W, 3]` uint8 to embeddings `[B, D]`.
      batches: Dicts of `images`, `indices [B]` int, the records they show, and `mask
        [B]` bool, False for padding and for images that could not be read.
      num_records: Number of records of the split, `N`.
      progress: Wrapper of the batches, e.g. a progress bar.

    Returns:
      Embeddings `[N, D]` float32 and `ok [N]` bool. A record that is in no batch, or
      whose embedding is not finite, is not ok and its row is 0. A split without any
      readable image gives embeddings `[N, 0]`.
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
        indices = np.asarray(batch["indices"])[mask][finite]
        embeddings[indices] = rows[finite]
        ok[indices] = True
    return embeddings, ok
