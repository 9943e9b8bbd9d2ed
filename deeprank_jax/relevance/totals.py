"""How relevant is each record to all others of its category? The paper's equation (6).

A kind that knows a closed form is asked for it. Of the others every pair is compared,
once for a set of records, since the result can be kept in a file.
"""

from collections.abc import Callable, Iterator
import hashlib
import os
import pathlib
from typing import Any

from absl import logging
import numpy as np
import tqdm

from deeprank_jax import files
from deeprank_jax.relevance.fingerprint import add_parts

# A category beyond this size is estimated.
_LARGEST_EXACT = 100_000
_NUM_LANDMARKS = 4_096
_NUM_MEASURED = 64
_SEED = 0
# Pairs at a time, so that they and what is computed of them take some 64 MiB.
_PAIRS = 2**18
_WIDTH = 2**9
_NUM_PROBED = 64


def total_relevance(
    relevance: Any,
    attributes: np.ndarray,
    category: np.ndarray,
    *,
    describe: Callable[[int], str] = "record {}".format,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Returns `[N]` float64, the relevance of each record to all others, summed.

    Args:
      relevance: of two records by their attributes.
      attributes: `[N, A]`, a row per record.
      category: `[N]` ints; records of other categories are not counted.
      describe: names a record by its index, for messages.
      cache: a folder that keeps what took a pass over all pairs, and has it mapped
        into memory; None to keep nothing.
      progress: whether to show a progress bar of such a pass.

    Raises:
      ValueError: a total is negative or not finite.
    """
    if hasattr(relevance, "total"):
        totals = np.zeros(len(attributes))
        for members in _categories(category):
            totals[members] = relevance.total(attributes[members])
        return _checked(totals, describe)
    if cache is None:
        return _checked(
            _compare_all(relevance, attributes, category, progress, describe), describe
        )
    name = _fingerprint(relevance, attributes, category)
    path = pathlib.Path(cache) / f"total_relevance-{name}.npy"
    found = _load(path, len(attributes))
    if found is not None:
        return found
    totals = _compare_all(relevance, attributes, category, progress, describe)
    _checked(totals, describe)
    try:
        _save(path, totals)
    except OSError as error:
        logging.warning(
            "%s: total relevances cannot be kept (%s), and are computed anew by the "
            "next run.",
            path,
            error.strerror or error,
        )
    found = _load(path, len(attributes))
    return totals if found is None else found


class _PairError(ValueError):
    """Two records of a category, by their places in it, whose relevance cannot be."""

    def __init__(self, first: int, second: int, value: float):
        super().__init__(f"the relevance of {first} and {second} is {value}")
        self.first, self.second, self.value = first, second, value


def _categories(category: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the records of each category, in order."""
    _, label = np.unique(category, return_inverse=True)
    order = np.argsort(label, kind="stable")
    yield from np.split(order, np.cumsum(np.bincount(label))[:-1])


def _checked(totals: np.ndarray, describe: Callable[[int], str]) -> np.ndarray:
    wrong = np.flatnonzero(~(np.isfinite(totals) & (totals >= 0)))
    if len(wrong):
        raise ValueError(
            "A total relevance must be finite and at least 0, got "
            f"{totals[wrong[0]]} for {describe(int(wrong[0]))}: correct what the "
            "relevance says of it and another of its category."
        )
    return totals


def _compare_all(
    relevance: Any,
    attributes: np.ndarray,
    category: np.ndarray,
    progress: bool,
    describe: Callable[[int], str],
) -> np.ndarray:
    """Returns the totals from all pairs, or of a large category from some."""
    totals = np.zeros(len(attributes))
    with tqdm.tqdm(
        total=len(attributes),
        desc="total relevance",
        unit=" records",
        unit_scale=True,
        leave=False,
        disable=not progress,
    ) as bar:
        for members in _categories(category):
            inside = np.asarray(attributes[members])
            try:
                if len(members) > _LARGEST_EXACT:
                    totals[members] = _estimate(relevance, inside, bar)
                else:
                    everyone = np.arange(len(members))
                    totals[members] = _sums(relevance, inside, everyone, everyone, bar)
            except _PairError as error:
                a, b = (describe(int(members[i])) for i in (error.first, error.second))
                raise ValueError(
                    f"The relevance of {a!r} and {b!r} is {error.value}; it must be "
                    "finite and at least 0."
                ) from error
    return totals


def _sums(
    relevance: Any,
    attributes: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    bar: Any = None,
) -> np.ndarray:
    """Returns the relevance of each of `rows` to all of `columns` but itself."""
    sums = np.zeros(len(rows))
    step = max(1, _PAIRS // min(len(columns), _WIDTH))
    others = [columns[i : i + _WIDTH] for i in range(0, len(columns), _WIDTH)]
    for first in range(0, len(rows), step):
        own = rows[first : first + step]
        for other in others:
            block = relevance.pairwise(attributes[own, None], attributes[None, other])
            # A copy, as it may be a view of what is not ours.
            block = np.array(block, np.float64)
            block[own[:, None] == other] = 0.0
            for i, j in np.argwhere(~(np.isfinite(block) & (block >= 0)))[:1]:
                raise _PairError(int(own[i]), int(other[j]), float(block[i, j]))
            sums[first : first + step] += block.sum(axis=1)
        if bar is not None:
            bar.update(len(own))
    return sums


def _estimate(relevance: Any, attributes: np.ndarray, bar: Any) -> np.ndarray:
    """Returns totals estimated, without bias, from records drawn at random."""
    size = len(attributes)
    rng = np.random.default_rng(_SEED)
    landmarks = np.sort(rng.choice(size, _NUM_LANDMARKS, replace=False))
    num_others = np.full(size, len(landmarks))
    num_others[landmarks] -= 1
    sums = _sums(relevance, attributes, np.arange(size), landmarks, bar)
    estimates = (size - 1) / num_others * sums
    measured = np.sort(rng.choice(size, _NUM_MEASURED, replace=False))
    exact = _sums(relevance, attributes, measured, np.arange(size))
    errors = np.abs(estimates[measured] - exact) / np.where(exact > 0, exact, 1.0)
    # Also where a program shows warnings only: it is an error that stays.
    logging.warning(
        "Total relevance of a category of %s records is estimated from %s of them; on "
        "%d records the relative error is %.2g on average, %.2g at most.",
        f"{size:,}",
        f"{len(landmarks):,}",
        len(measured),
        errors.mean(),
        errors.max(),
    )
    return estimates


def _load(path: pathlib.Path, size: int) -> np.ndarray | None:
    """Returns the file's totals, None where it does not hold them."""
    try:
        totals = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return totals if totals.shape == (size,) else None


def _save(path: pathlib.Path, totals: np.ndarray) -> None:
    files.create_folder(path.parent)
    with files.replacing(path) as file:
        np.save(file, totals)


def _fingerprint(relevance: Any, attributes: np.ndarray, category: np.ndarray) -> str:
    """Returns a hash of all that the totals follow from."""
    digest = hashlib.sha256()
    add_parts(digest, [attributes, category])
    add_parts(digest, relevance)
    # What its own parts do not tell, e.g. a function of another module.
    probed = np.linspace(0, len(attributes) - 1, _NUM_PROBED).astype(int)
    found = np.asarray(attributes[probed])
    block = np.asarray(relevance.pairwise(found[:, None], found[None]))
    # Rounded, as a matrix product's last digits are the machine's.
    digest.update(" ".join(f"{value:.3g}" for value in block.ravel()).encode())
    return digest.hexdigest()[:16]
