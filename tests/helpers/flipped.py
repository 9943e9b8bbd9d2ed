"""Files with one bit flipped."""

import numpy as np

from deeprank_jax.errors import DataError


def count_refused(path, read, check, *, num=400):
    """Flips a bit at each of `num` places, and returns how often the file is refused.

    Args:
      path: Path of the file, which is left with a bit flipped.
      read: Function without arguments that reads it, or raises a `DataError`.
      check: Function that is called with what was read all the same, and fails if it
        is not that of the whole file.
      num: Number of places.
    """
    whole, rng, num_refused = path.read_bytes(), np.random.default_rng(0), 0
    for place in rng.permutation(len(whole))[:num]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            content = read()
        except DataError as error:
            num_refused += str(path) in str(error)
            continue
        check(content)
    return num_refused
