"""Total relevance of each record to its category, the paper's equation (6).

A kind with the method `total` has a closed form. For the others every pair is compared,
once for a set of records, as the result is cached in a file.
"""

from collections.abc import Callable, Iterator
import hashlib
import io
import os
import pathlib

from absl import logging
import numpy as np

from deeprank_jax import files
from deeprank_jax.errors import DataError, WriteError
from deeprank_jax.progress import Bar
from deeprank_jax.relevance.base import Relevance
from deeprank_jax.relevance.fingerprint import add_parts

# Totals of a larger category are estimated.
_LARGEST_EXACT = 100_000
_NUM_LANDMARKS = 4_096
_NUM_EXACT = 64
_SEED = 0
# Pairs compared at a time: they and their temporary arrays take some 64 MiB.
_PAIRS = 2**18
_WIDTH = 2**9
_NUM_PROBED = 64
_DIGEST_SIZE = hashlib.sha256().digest_size


def total_relevance(
    relevance: Relevance,
    attributes: np.ndarray,
    category: np.ndarray,
    *,
    describe: Callable[[int], str] = "record {}".format,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Returns `[N]` float64, the relevance of each record to all others, summed.

    Args:
      relevance: Relevance of two records by their attributes.
      attributes: `[N, A]`, one row per record.
      category: `[N]` int, category of each record; others are not counted.
      describe: Function from a record's index to its name, for messages.
      cache: Folder for the result of comparing all pairs, which is then mapped into
        memory; None to cache nothing.
      progress: True to show a progress bar of the comparison.

    Raises:
      DataError: A total is negative or not finite.
    """
    closed_form = getattr(relevance, "total", None)
    if closed_form is not None:
        totals = np.zeros(len(attributes))
        for members in _categories(category):
            totals[members] = closed_form(attributes[members])
        _check_totals(totals, describe)
        return totals
    if cache is None:
        return _compare_all(relevance, attributes, category, progress, describe)
    name = _fingerprint(relevance, attributes, category)
    path = pathlib.Path(cache) / f"total_relevance-{name}.npy"
    cached = _load(path, len(attributes))
    if cached is not None:
        return cached
    totals = _compare_all(relevance, attributes, category, progress, describe)
    try:
        _save(path, totals)
    except WriteError as error:
        logging.warning(
            "%s: total relevances are not cached (%s); the next run computes them "
            "again.",
            path,
            error.strerror or error,
        )
    cached = _load(path, len(attributes))
    return totals if cached is None else cached


def is_estimated(relevance: Relevance, size: int) -> bool:
    """Returns whether the totals of a category of so many records are estimates."""
    return not hasattr(relevance, "total") and size > _LARGEST_EXACT


class _PairError(ValueError):
    """An invalid relevance of two records, by their positions in a category."""

    def __init__(self, first: int, second: int, value: float):
        super().__init__(f"the relevance of {first} and {second} is {value}")
        self.first, self.second, self.value = first, second, value


def _categories(category: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the records of each category, in order."""
    _, label = np.unique(category, return_inverse=True)
    order = np.argsort(label, kind="stable")
    yield from np.split(order, np.cumsum(np.bincount(label))[:-1])


def _check_totals(totals: np.ndarray, describe: Callable[[int], str]) -> None:
    invalid = np.flatnonzero(~(np.isfinite(totals) & (totals >= 0)))
    if len(invalid):
        raise DataError(
            "A total relevance must be finite and at least 0, got "
            f"{totals[invalid[0]]} for {describe(int(invalid[0]))}; correct its "
            "relevance to another record of its category."
        )


def _compare_all(
    relevance: Relevance,
    attributes: np.ndarray,
    category: np.ndarray,
    progress: bool,
    describe: Callable[[int], str],
) -> np.ndarray:
    """Returns the totals from all pairs; those of a large category from a sample."""
    totals = np.zeros(len(attributes))
    with Bar(
        total=len(attributes),
        desc="total relevance",
        unit="record",
        unit_scale=True,
        leave=False,
        shown=progress,
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
                raise DataError(
                    f"The relevance of {a!r} and {b!r} is {error.value}; it must be "
                    "finite and at least 0."
                ) from error
    _check_totals(totals, describe)
    return totals


def _sums(
    relevance: Relevance,
    attributes: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    bar: Bar | None = None,
) -> np.ndarray:
    """Returns the summed relevance of each of `rows` to all other `columns`."""
    sums = np.zeros(len(rows))
    step = max(1, _PAIRS // min(len(columns), _WIDTH))
    others = [columns[i : i + _WIDTH] for i in range(0, len(columns), _WIDTH)]
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        for other in others:
            block = relevance.pairwise(attributes[part, None], attributes[None, other])
            # A copy, as the relevance may return a view of its own array.
            block = np.array(block, np.float64)
            block[part[:, None] == other] = 0.0
            for i, j in np.argwhere(~(np.isfinite(block) & (block >= 0)))[:1]:
                raise _PairError(int(part[i]), int(other[j]), float(block[i, j]))
            sums[first : first + step] += block.sum(axis=1)
        if bar is not None:
            bar.update(len(part))
    return sums


def _estimate(relevance: Relevance, attributes: np.ndarray, bar: Bar) -> np.ndarray:
    """Returns unbiased estimates of the totals from a random sample of records."""
    size = len(attributes)
    rng = np.random.default_rng(_SEED)
    landmarks = np.sort(rng.choice(size, _NUM_LANDMARKS, replace=False))
    num_others = np.full(size, len(landmarks))
    num_others[landmarks] -= 1
    sums = _sums(relevance, attributes, np.arange(size), landmarks, bar)
    estimates = (size - 1) / num_others * sums
    probes = np.sort(rng.choice(size, _NUM_EXACT, replace=False))
    exact = _sums(relevance, attributes, probes, np.arange(size))
    errors = np.abs(estimates[probes] - exact) / np.where(exact > 0, exact, 1.0)
    # A warning, since the error stays in the sampler.
    logging.warning(
        "Total relevance of a category of %s records is estimated from %s of them; on "
        "%d records the relative error is %.2g on average, %.2g at most.",
        f"{size:,}",
        f"{len(landmarks):,}",
        len(probes),
        errors.mean(),
        errors.max(),
    )
    return estimates


def _load(path: pathlib.Path, size: int) -> np.ndarray | None:
    """Returns the totals in a file, None if it does not hold them."""
    try:
        files.check_file(path)
        content = path.read_bytes()
    except OSError:
        return None
    if not content.endswith(hashlib.sha256(content[:-_DIGEST_SIZE]).digest()):
        logging.warning("%s is damaged, or of an earlier version: made anew.", path)
        return None
    totals = np.load(path, mmap_mode="r", allow_pickle=False)
    return totals if totals.shape == (size,) else None


def _save(path: pathlib.Path, totals: np.ndarray) -> None:
    """Writes the totals, and a digest of the file after them."""
    content = io.BytesIO()
    np.save(content, totals)
    files.create_folder(path.parent)
    with files.replacing(path) as file:
        file.write(content.getvalue())
        file.write(hashlib.sha256(content.getvalue()).digest())


def _fingerprint(
    relevance: Relevance, attributes: np.ndarray, category: np.ndarray
) -> str:
    """Returns a hash of everything that determines the totals."""
    digest = hashlib.sha256()
    add_parts(digest, [attributes, category])
    add_parts(digest, relevance)
    # Some values, as its parts do not include e.g. a function of another module.
    probed = np.linspace(0, len(attributes) - 1, _NUM_PROBED).astype(int)
    probes = np.asarray(attributes[probed])
    block = np.asarray(relevance.pairwise(probes[:, None], probes[None]))
    # Rounded, as the last digits of a matrix product depend on the machine.
    digest.update(" ".join(f"{value:.3g}" for value in block.ravel()).encode())
    return digest.hexdigest()[:16]
