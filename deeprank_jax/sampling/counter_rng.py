"""Counter-based random numbers: pure functions of seed, epoch and index.

A sampler that draws from them can stop, restore and go on at any step without a stored
generator or a stored order.
"""

import numpy as np

ROUNDS = 6
# Few cells mix slowly: after 6 rounds, some orders of 6 records are 4 times as likely.
_FEW_RECORDS, _MANY_ROUNDS = 256, 32
# Tags that keep the streams of one seed apart.
_RACE, _ORDER, DRAW, AUGMENT, TABLE = 1, 2, 3, 4, 5


def step_rng(seed: int, tag: int, step: int, shard: int = 0) -> np.random.Generator:
    """Returns the generator of a step, or of a table, of one process for a tag."""
    return np.random.default_rng([seed, tag, step, shard])


def exponentials(seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """Returns standard exponential variates, one for each record in an epoch.

    Args:
      seed: Seed, at least 0.
      epoch: Number of the epoch, from 0.
      index: `[n]` ints, indices of records.

    Returns:
      `[n]` float64, above 0 and finite.
    """
    (key,) = _keys(seed, _RACE, epoch, 1)
    bits = _mix(index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key)
    # 52 bits and a half fit into a float64 exactly: never 0, never 1.
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(uniform)


def permute(
    seed: int,
    epoch: int,
    position: np.ndarray,
    size: int,
    *,
    num_rounds: int | None = None,
) -> np.ndarray:
    """Returns the record at each position of an epoch: a keyed bijection.

    A Feistel network over the cells `(row, column)` of a table of at least `size`
    cells. Cells beyond `size` are permuted again until they fall inside; they are
    fewer than a row, so that this is rare.

    Args:
      seed: Seed, at least 0.
      epoch: Number of the epoch, from 0.
      position: `[n]`, positions in `[0, size)`.
      size: Number of records in an epoch, from 1 to 2^60.
      num_rounds: Number of rounds of the network; None for as many as the size needs.

    Returns:
      `[n]` int64 in `[0, size)`.

    References:
      Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002,
      https://web.cs.ucdavis.edu/~rogaway/papers/subset.pdf.
    """
    if num_rounds is None:
        num_rounds = _MANY_ROUNDS if size < _FEW_RECORDS else ROUNDS
    keys = _keys(seed, _ORDER, epoch, num_rounds)
    width = int(np.ceil(np.sqrt(size)))
    height = -(-size // width)
    cell = _shuffle(position.astype(np.uint64), height, width, keys)
    while (outside := cell >= size).any():
        cell[outside] = _shuffle(cell[outside], height, width, keys)
    return cell.astype(np.int64)


def _shuffle(cell: np.ndarray, height: int, width: int, keys: np.ndarray) -> np.ndarray:
    """Permutes the cells of a `height x width` table."""
    row, column = np.divmod(cell, np.uint64(width))
    for turn, key in enumerate(keys):
        if turn % 2:
            column = (column + _mix(row + key) % np.uint64(width)) % np.uint64(width)
        else:
            row = (row + _mix(column + key) % np.uint64(height)) % np.uint64(height)
    return row * np.uint64(width) + column


def _mix(x: np.ndarray) -> np.ndarray:
    """Applies the finaliser of SplitMix64: every output bit depends on every input."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _keys(seed: int, tag: int, epoch: int, num: int) -> np.ndarray:
    return np.random.SeedSequence([seed, tag, epoch]).generate_state(num, np.uint64)
