"""Assignment of names to splits by their hashes, with a least number for each split."""

from collections.abc import Sequence

import numpy as np

from deeprank_jax.data.splits import Shares


def assign_by_hash(digests: Sequence[bytes], shares: Shares, least: int) -> np.ndarray:
    """Returns the split of each of some names, `[N]` str.

    The first byte of its hash decides, so that a name stays in its split when others
    are added. Where a split would get less than `least`, it gets those of the nearest
    hashes.

    Args:
      digests: Hash of each name, at least `least` for each split.
      shares: Shares of validation and test.
      least: Least number of names of a split.
    """
    ends = shares.ends
    first_bytes = np.array([x[0] for x in digests])
    parts = np.searchsorted(list(ends.values()), first_bytes, side="right")
    names = np.array([*ends, "train"])
    counts = np.bincount(parts, minlength=len(names))
    if counts.min() >= least:
        return names[parts]
    counts = np.maximum(counts, least)
    while counts.sum() > len(digests):
        counts[np.argmax(counts)] -= 1
    order = sorted(range(len(digests)), key=digests.__getitem__)
    splits = np.empty(len(digests), names.dtype)
    splits[order] = np.repeat(names, counts)
    return splits
