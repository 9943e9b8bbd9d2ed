"""Which rows of a gallery that stays on the device lie nearest? Exact, two levels deep.

Distances are squared Euclidean. Equal distances rank in gallery order.

One matrix product after another leaves only the greatest nearness of every chunk of
rows. The chunks with the greatest are then measured row by row, and a bound on the
rounding tells whether another chunk could hold a row as near; if so, that query is
measured against everything. Where many neighbours are asked for, rows take the place
of chunks.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Rows of a chunk, of a group of chunks, and of a block. A block's products are to fit
# the cache: 4 MiB with 256 queries.
_CHUNK, _GROUP, _BLOCK = 16, 512, 4096
_MAX_QUERIES = 256
# Chunks or rows beyond k, so that rounding in the matrix product seldom leaves a doubt.
_SPARE = 8
# Times as many rows, if there is a doubt.
_MANY = 8
# Rows whose median is taken for the middle.
_NUM_MIDDLE = 1024
# float32 values that products and what is measured again may hold: 128 MiB.
_BLOCK_VALUES = 2**25
# Which queries, their distances and their rows.
Block = tuple[slice, np.ndarray, np.ndarray]


class ExactSearch:
    """A gallery on the devices, to be searched again and again."""

    def __init__(
        self,
        parts: Iterable[np.ndarray],
        num_rows: int,
        dim: int,
        *,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Puts the gallery on the devices.

        Args:
          parts: arrays `[n, D]` of finite float32, which one after another are the
            gallery.
          num_rows: how many rows they have together, at least 1.
          dim: D.
          devices: which share the queries, each with a copy of the gallery; None for
            the first alone. What is found does not depend on how many there are.
        """
        padded = _aligned_zeros(_padded_size(num_rows), dim)
        start = 0
        for part in parts:
            padded[start : start + len(part)] = part
            start += len(part)
        self.num_rows, self._num_padded, self._dim = num_rows, *padded.shape
        self._block = min(_BLOCK, len(padded))
        # Rounding grows with the norms, which are small around the middle of the rows.
        some = padded[: num_rows : -(-num_rows // _NUM_MIDDLE)]
        middle = np.median(some, axis=0)
        self._copies = []
        for device in devices or jax.local_devices()[:1]:
            gallery, centre = jax.device_put((padded, middle), device)
            norms = _square_norms(gallery, centre, num_rows, block=self._block)
            self._copies.append((gallery, norms, centre))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds each query's `k` nearest rows, exactly.

        Args:
          queries: `[Q, D]` finite float32.
          k: how many, from 1 to `num_rows`.

        Returns:
          Squared distances `[Q, k]` float32, ascending, and row numbers `[Q, k]` int32.
          Equal distances rank in gallery order.
        """
        distances = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int32)
        for part, some_distances, some_rows in self.blocks(queries, k):
            distances[part], rows[part] = some_distances, some_rows
        return distances, rows

    def blocks(self, queries: np.ndarray, k: int) -> Iterator[Block]:
        """Yields what `search` returns, some queries at a time, in order."""
        k = int(k)  # The compiler wants no NumPy number.
        by_chunks, size = self._plan(k)
        started: collections.deque[tuple[slice, Any]] = collections.deque()
        for number, start in enumerate(range(0, len(queries), size)):
            part = slice(start, min(start + size, len(queries)))
            copy = self._copies[number % len(self._copies)]
            started.append((part, self._start(queries[part], k, copy, by_chunks)))
            # While the host looks at one block, each device is at another.
            if len(started) > len(self._copies):
                yield self._finish(queries, k, *started.popleft())
        while started:
            yield self._finish(queries, k, *started.popleft())

    def _plan(self, k: int) -> tuple[bool, int]:
        """Returns whether chunks are measured or rows, and for how many queries."""
        measured = (k + _SPARE) * _CHUNK * self._dim
        # To gather a number and to sift a row cost about the same.
        by_chunks = measured <= self._num_padded
        values = measured if by_chunks else self._num_padded
        return by_chunks, self._queries_at_once(values)

    def _queries_at_once(self, values: int) -> int:
        """Returns how many queries, of so many values each, are looked at together."""
        most = max(1, min(_MAX_QUERIES, _BLOCK_VALUES // values))
        return 1 << (most.bit_length() - 1)

    def _start(
        self, queries: np.ndarray, k: int, copy: tuple[Any, ...], by_chunks: bool
    ) -> Any:
        search = _search_chunks if by_chunks else _search_rows
        options = dict(num_rows=self.num_rows, k=k, block=self._block)
        num = k + _SPARE if by_chunks else min(k + _SPARE, self.num_rows)
        return search(_pad(queries), *copy, num_measured=num, **options)

    def _finish(self, queries: np.ndarray, k: int, part: slice, found: Any) -> Block:
        num = part.stop - part.start
        distances, rows, is_certain = (np.array(x)[:num] for x in found)
        for measure in self._search_again, self._search_directly:
            doubtful = np.flatnonzero(~is_certain)
            if len(doubtful):
                again = measure(queries[part][doubtful], k)
                distances[doubtful], rows[doubtful], is_certain[doubtful] = again
        return part, distances, rows

    def _search_again(
        self, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Measures many more rows, where long vectors leave much room for rounding."""
        num = min(_MANY * (k + _SPARE), self.num_rows)
        options = dict(num_rows=self.num_rows, k=k, block=self._block)
        size = self._queries_at_once(self._num_padded)
        found = []
        for start in range(0, len(queries), size):
            some = queries[start : start + size]
            answer = _search_rows(
                _pad(some), *self._copies[0], num_measured=num, **options
            )
            found.append([np.asarray(x)[: len(some)] for x in answer])
        distances, rows, is_certain = map(np.concatenate, zip(*found, strict=True))
        return distances, rows, is_certain

    def _search_directly(
        self, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        gallery, _, _ = self._copies[0]
        options = dict(num_rows=self.num_rows, k=k, block=self._block)
        found = _search_all(_pad(queries), gallery, **options)
        distances, rows = (np.asarray(x)[: len(queries)] for x in found)
        return distances, rows, np.ones(len(queries), bool)


def _aligned_zeros(num_rows: int, dim: int) -> np.ndarray:
    """Returns zeros `[num_rows, dim]` float32 that JAX on the CPU takes as they are."""
    # What does not begin at a multiple of 64 bytes is copied, all of it.
    num_bytes = 4 * num_rows * dim
    memory = np.zeros(num_bytes + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + num_bytes].view(np.float32).reshape(num_rows, dim)


def _padded_size(num_rows: int) -> int:
    """Returns a size of few, so that a gallery that grows is seldom compiled anew."""
    if num_rows <= _BLOCK:
        return max(_GROUP, 1 << (num_rows - 1).bit_length())
    step = max(_BLOCK, 1 << (num_rows.bit_length() - 6))
    return -(-num_rows // step) * step


def _pad(queries: np.ndarray) -> np.ndarray:
    size = 1 << (len(queries) - 1).bit_length()
    return np.pad(queries, ((0, size - len(queries)), (0, 0)))


@functools.partial(jax.jit, static_argnames="block")
def _square_norms(gallery, centre, num_rows, *, block):
    """Returns squared norms `[G]` about the centre, infinite for rows that only pad."""
    blocks = gallery.reshape(-1, block, gallery.shape[1])
    # All at once, the differences would take as much memory as the gallery.
    measure = lambda rows: jnp.sum(jnp.square(rows - centre[None]), axis=1)
    norms = jax.lax.map(measure, blocks).reshape(-1)
    return jnp.where(jnp.arange(len(gallery)) < num_rows, norms, jnp.inf)


@functools.partial(jax.jit, static_argnames=("num_measured", "k", "block"))
def _search_chunks(
    queries, gallery, norms, centre, *, num_rows, num_measured, k, block
):
    """Returns distances and rows `[Q, k]`, and whether each query's are certain."""
    centred = queries - centre[None]
    chunks, cutoff = _nearest_chunks(
        centred, gallery, norms, centre, num_chunks=num_measured, block=block
    )
    # In gallery order, for the first of equals is taken.
    chunks = jnp.sort(chunks, axis=1)
    rows = chunks[..., None] * _CHUNK + jnp.arange(_CHUNK)[None, None]
    measured = gallery.reshape(-1, _CHUNK, gallery.shape[1])[chunks]
    gaps = queries[:, None, None] - measured
    distances = jnp.sum(jnp.square(gaps), axis=-1)
    distances = jnp.where(rows < num_rows, distances, jnp.inf)
    distances, rows = distances.reshape(len(rows), -1), rows.reshape(len(rows), -1)
    negated, order = jax.lax.top_k(-distances, k)
    is_certain = _is_certain(centred, norms, cutoff, -_last(negated))
    return -negated, jnp.take_along_axis(rows, order, axis=1), is_certain


@functools.partial(jax.jit, static_argnames=("num_measured", "k", "block"))
def _search_rows(queries, gallery, norms, centre, *, num_rows, num_measured, k, block):
    """Returns as `_search_chunks` does, where many are asked for."""
    centred = queries - centre[None]

    def block_nearness(rows_and_norms):
        rows, block_norms = rows_and_norms
        products = jnp.matmul(
            2.0 * centred, (rows - centre[None]).T, precision=jax.lax.Precision.HIGHEST
        )
        return products - block_norms[None]

    # All at once, the differences would take as much memory as the gallery.
    blocks = gallery.reshape(-1, block, gallery.shape[1]), norms.reshape(-1, block)
    nearness = jax.lax.map(block_nearness, blocks)
    nearness = jnp.moveaxis(nearness, 0, 1).reshape(len(queries), -1)
    values, rows = jax.lax.top_k(nearness, num_measured)
    distances = _measure(queries, gallery, rows)
    distances, rows = jax.lax.sort((distances, rows.astype(jnp.int32)), num_keys=2)
    is_certain = _is_certain(centred, norms, _last(values), distances[:, k - 1])
    # Where every row was measured, there is none to be in doubt of.
    is_certain |= num_measured >= num_rows
    return distances[:, :k], rows[:, :k], is_certain


def _measure(queries, gallery, rows):
    """Returns squared distances `[Q, M]` from each query to its rows `[Q, M]`."""

    def measure_one(query_and_rows):
        query, its_rows = query_and_rows
        return jnp.sum(jnp.square(query[None] - gallery[its_rows]), axis=-1)

    at_once = max(1, _BLOCK_VALUES // (rows.shape[1] * gallery.shape[1]))
    together = min(at_once, len(queries))
    return jax.lax.map(measure_one, (queries, rows), batch_size=together)


def _last(values):
    """Returns `[Q]`, the last column of what `top_k` found `[Q, K]`."""
    # A slice, XLA:CPU takes for leave to sort everything, fifty times as long.
    return jnp.min(values, axis=1)


def _is_certain(centred, norms, cutoff, farthest):
    """Returns `[Q]`, whether no row that was not measured is as near as `farthest`.

    Args:
      centred: `[Q, D]` queries.
      norms: `[G]` of the rows about the same centre.
      cutoff: `[Q]`, the most nearness that a row which was not measured can have.
      farthest: `[Q]` squared distances.
    """
    own_norms = jnp.sum(jnp.square(centred), axis=1)
    rounding = _rounding(own_norms, norms, farthest, centred.shape[1])
    return own_norms - cutoff - rounding > farthest


def _rounding(own_norms, norms, farthest, dim):
    """Returns a bound `[Q]` on what rounding adds to a distance up to `farthest`."""
    own = jnp.sqrt(own_norms)
    longest = jnp.sqrt(jnp.max(jnp.where(jnp.isfinite(norms), norms, 0.0)))
    # A row as near as that is no longer than this.
    others = jnp.minimum(longest, own + jnp.sqrt(farthest))
    # A sum of D rounded products is off by D half-units in the last place at most, and
    # four sums are compared.
    return 2 * (dim + 4) * jnp.finfo(jnp.float32).eps * jnp.square(own + others)


def _nearest_chunks(queries, gallery, norms, centre, *, num_chunks, block):
    """Returns chunks `[Q, num_chunks]`, and `[Q]` the most nearness of any other."""

    def block_maxima(_, rows_and_norms):
        rows, block_norms = rows_and_norms
        # A query's own norm is the same for all its rows and ranks nothing.
        products = jnp.matmul(
            rows - centre[None], doubled.T, precision=jax.lax.Precision.HIGHEST
        )
        nearness = products - block_norms[:, None]
        return None, nearness.reshape(-1, _CHUNK, len(queries)).max(axis=1)

    doubled = 2.0 * queries
    blocks = gallery.reshape(-1, block, gallery.shape[1]), norms.reshape(-1, block)
    _, maxima = jax.lax.scan(block_maxima, None, blocks)
    grouped = maxima.reshape(-1, _GROUP // _CHUNK, len(queries))
    num_groups = min(num_chunks, len(grouped))
    _, groups = jax.lax.top_k(grouped.max(axis=1).T, num_groups)
    inside = jnp.take_along_axis(grouped, groups.T[:, None], axis=0)
    inside = inside.transpose(2, 0, 1).reshape(len(queries), -1)
    values, places = jax.lax.top_k(inside, num_chunks)
    group, chunk = places // grouped.shape[1], places % grouped.shape[1]
    chosen = jnp.take_along_axis(groups, group, axis=1) * grouped.shape[1] + chunk
    return chosen, _last(values)


@functools.partial(jax.jit, static_argnames=("k", "block"))
def _search_all(queries, gallery, *, num_rows, k, block):
    """Returns distances and rows `[Q, k]` of a search that measures every row."""
    blocks = gallery.reshape(-1, block, gallery.shape[1])
    starts = jnp.arange(0, len(gallery), block)

    def search_one(query):
        def merge(best, block_and_start):
            rows = block_and_start[1] + jnp.arange(block)
            distances = jnp.sum(jnp.square(block_and_start[0] - query[None]), axis=1)
            distances = jnp.where(rows < num_rows, distances, jnp.inf)
            # The best so far come first, for of equals the first is taken.
            both = jnp.concatenate([best[0], distances])
            negated, order = jax.lax.top_k(-both, k)
            return (-negated, jnp.concatenate([best[1], rows])[order]), None

        nothing = jnp.full(k, jnp.inf), jnp.zeros(k, starts.dtype)
        return jax.lax.scan(merge, nothing, (blocks, starts))[0]

    return jax.lax.map(search_one, queries)
