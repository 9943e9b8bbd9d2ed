"""Exact nearest-neighbour search in a gallery on the devices, at two levels.

Distances are squared Euclidean. Equal distances rank in gallery order.

Matrix products give the greatest nearness of every chunk of rows. Distances to the rows
of the nearest chunks are then computed directly, and a bound on the rounding decides
if another chunk could have a row as near; such a query is compared with every row. For
a large number of neighbours, rows take the place of chunks.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

# Rows of a chunk, of a group of chunks, and of a block. The products of a block fit
# the cache: 4 MiB with 256 queries.
_CHUNK, _GROUP, _BLOCK = 16, 512, 4096
_MAX_QUERIES = 256
# Candidates beyond k, so that rounding in the matrix product rarely causes a doubt.
_SPARE = 8
# Factor of the number of candidates, if there is a doubt.
_MANY = 8
# Number of rows whose median is the centre.
_NUM_MIDDLE = 1024
# float32 values of the products and of the candidates: 128 MiB.
_BLOCK_VALUES = 2**25
# A slice of the queries, their distances and their rows.
Block = tuple[slice, np.ndarray, np.ndarray]
# Gallery, squared norms and centre on one device.
Copy = tuple[jax.Array, jax.Array, jax.Array]
# Distances, rows and a flag per query, True where they are proved exact.
Answer = tuple[jax.Array, jax.Array, jax.Array]


class ExactSearch:
    """A gallery on the devices, for many searches."""

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
          parts: Arrays `[n, D]` of finite float32, the gallery in order.
          num_rows: Number of rows of all parts, at least 1.
          dim: Number of dimensions D.
          devices: Devices that share the queries, each with a copy of the gallery; None
            for the first alone. The result does not depend on their number.
        """
        padded = _aligned_zeros(_padded_size(num_rows), dim)
        start = 0
        for part in parts:
            padded[start : start + len(part)] = part
            start += len(part)
        self.num_rows, self._num_padded, self._dim = num_rows, *padded.shape
        self._block = min(_BLOCK, len(padded))
        # Rounding grows with the norms, which are small about the centre of the rows.
        sample = padded[: num_rows : -(-num_rows // _NUM_MIDDLE)]
        middle = np.median(sample, axis=0)
        self._copies = []
        for device in devices or jax.local_devices()[:1]:
            gallery, centre = jax.device_put((padded, middle), device)
            norms = _square_norms(gallery, centre, num_rows, block=self._block)
            self._copies.append((gallery, norms, centre))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds each query's `k` nearest rows, exactly.

        Args:
          queries: `[Q, D]` finite float32.
          k: Number of neighbours, from 1 to `num_rows`.

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
        """Yields the result of `search` in order, a slice of the queries at a time."""
        k = int(k)  # A static argument of the compiled search.
        by_chunks, size = self._plan(k)
        started: collections.deque[tuple[slice, Answer]] = collections.deque()
        for number, start in enumerate(range(0, len(queries), size)):
            part = slice(start, min(start + size, len(queries)))
            copy = self._copies[number % len(self._copies)]
            started.append((part, self._start(queries[part], k, copy, by_chunks)))
            # While the host finishes one block, each device works on another.
            if len(started) > len(self._copies):
                yield self._finish(queries, k, *started.popleft())
        while started:
            yield self._finish(queries, k, *started.popleft())

    def _plan(self, k: int) -> tuple[bool, int]:
        """Returns True for a search by chunks, and the number of queries per block."""
        num_gathered = (k + _SPARE) * _CHUNK * self._dim
        # Gathering a value costs about as much as sorting a row.
        by_chunks = num_gathered <= self._num_padded
        values = num_gathered if by_chunks else self._num_padded
        return by_chunks, self._queries_at_once(values)

    def _queries_at_once(self, values: int) -> int:
        """Returns the number of queries per block.

        Args:
          values: Number of values per query.
        """
        most = max(1, min(_MAX_QUERIES, _BLOCK_VALUES // values))
        return 1 << (most.bit_length() - 1)

    def _start(
        self, queries: np.ndarray, k: int, copy: Copy, by_chunks: bool
    ) -> Answer:
        search = _search_chunks if by_chunks else _search_rows
        options = dict(num_rows=self.num_rows, k=k, block=self._block)
        num = k + _SPARE if by_chunks else min(k + _SPARE, self.num_rows)
        return search(_pad(queries), *copy, num_candidates=num, **options)

    def _finish(
        self, queries: np.ndarray, k: int, part: slice, answer: Answer
    ) -> Block:
        num = part.stop - part.start
        distances, rows, is_certain = (np.array(x)[:num] for x in answer)
        for search in self._search_again, self._search_directly:
            doubtful = np.flatnonzero(~is_certain)
            if len(doubtful):
                again = search(queries[part][doubtful], k)
                distances[doubtful], rows[doubtful], is_certain[doubtful] = again
        return part, distances, rows

    def _search_again(
        self, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Searches with many more candidates, as long vectors need for rounding."""
        num = min(_MANY * (k + _SPARE), self.num_rows)
        options = dict(num_rows=self.num_rows, k=k, block=self._block)
        size = self._queries_at_once(self._num_padded)
        answers = []
        for start in range(0, len(queries), size):
            block = queries[start : start + size]
            answer = _search_rows(
                _pad(block), *self._copies[0], num_candidates=num, **options
            )
            answers.append([np.asarray(x)[: len(block)] for x in answer])
        distances, rows, is_certain = map(np.concatenate, zip(*answers, strict=True))
        return distances, rows, is_certain

    def _search_directly(
        self, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compares queries with every row."""
        gallery, _, _ = self._copies[0]
        options = dict(num_rows=self.num_rows, k=k, block=self._block)
        answer = _search_all(_pad(queries), gallery, **options)
        distances, rows = (np.asarray(x)[: len(queries)] for x in answer)
        return distances, rows, np.ones(len(queries), bool)


def _aligned_zeros(num_rows: int, dim: int) -> np.ndarray:
    """Returns zeros `[num_rows, dim]` float32 that JAX on the CPU does not copy."""
    # JAX copies an array that does not start at a multiple of 64 bytes.
    num_bytes = 4 * num_rows * dim
    memory = np.zeros(num_bytes + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + num_bytes].view(np.float32).reshape(num_rows, dim)


def _padded_size(num_rows: int) -> int:
    """Returns one of few sizes, so that a growing gallery rarely compiles again."""
    if num_rows <= _BLOCK:
        return max(_GROUP, 1 << (num_rows - 1).bit_length())
    step = max(_BLOCK, 1 << (num_rows.bit_length() - 6))
    return -(-num_rows // step) * step


def _pad(queries: np.ndarray) -> np.ndarray:
    size = 1 << (len(queries) - 1).bit_length()
    return np.pad(queries, ((0, size - len(queries)), (0, 0)))


@functools.partial(jax.jit, static_argnames="block")
def _square_norms(gallery, centre, num_rows, *, block):
    """Returns squared norms `[G]` about the centre, infinite for padding."""
    blocks = gallery.reshape(-1, block, gallery.shape[1])
    # Without blocks, the differences would take as much memory as the gallery.
    measure = lambda rows: jnp.sum(jnp.square(rows - centre[None]), axis=1)
    norms = jax.lax.map(measure, blocks).reshape(-1)
    return jnp.where(jnp.arange(len(gallery)) < num_rows, norms, jnp.inf)


@functools.partial(jax.jit, static_argnames=("num_candidates", "k", "block"))
def _search_chunks(
    queries, gallery, norms, centre, *, num_rows, num_candidates, k, block
):
    """Returns distances and rows `[Q, k]`, and `[Q]` bool, True where proved exact."""
    centred = queries - centre[None]
    chunks, cutoff = _nearest_chunks(
        centred, gallery, norms, centre, num_chunks=num_candidates, block=block
    )
    # In gallery order, since `top_k` takes the first of equal values.
    chunks = jnp.sort(chunks, axis=1)
    rows = chunks[..., None] * _CHUNK + jnp.arange(_CHUNK)[None, None]
    candidates = gallery.reshape(-1, _CHUNK, gallery.shape[1])[chunks]
    gaps = queries[:, None, None] - candidates
    distances = jnp.sum(jnp.square(gaps), axis=-1)
    distances = jnp.where(rows < num_rows, distances, jnp.inf)
    distances, rows = distances.reshape(len(rows), -1), rows.reshape(len(rows), -1)
    negated, order = jax.lax.top_k(-distances, k)
    is_certain = _is_certain(centred, norms, cutoff, -_last(negated))
    return -negated, jnp.take_along_axis(rows, order, axis=1), is_certain


@functools.partial(jax.jit, static_argnames=("num_candidates", "k", "block"))
def _search_rows(
    queries, gallery, norms, centre, *, num_rows, num_candidates, k, block
):
    """Returns the same as `_search_chunks`, with rows as candidates."""
    centred = queries - centre[None]

    def block_nearness(rows_and_norms):
        rows, block_norms = rows_and_norms
        products = jnp.matmul(
            2.0 * centred, (rows - centre[None]).T, precision=jax.lax.Precision.HIGHEST
        )
        return products - block_norms[None]

    # Without blocks, the differences would take as much memory as the gallery.
    blocks = gallery.reshape(-1, block, gallery.shape[1]), norms.reshape(-1, block)
    nearness = jax.lax.map(block_nearness, blocks)
    nearness = jnp.moveaxis(nearness, 0, 1).reshape(len(queries), -1)
    values, rows = jax.lax.top_k(nearness, num_candidates)
    distances = _measure(queries, gallery, rows)
    distances, rows = jax.lax.sort((distances, rows.astype(jnp.int32)), num_keys=2)
    is_certain = _is_certain(centred, norms, _last(values), distances[:, k - 1])
    # With every row a candidate, the result is exact.
    is_certain |= num_candidates >= num_rows
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
    """Returns `[Q]`, the last column of values `[Q, K]` from `top_k`."""
    # A slice makes XLA:CPU sort everything, which takes fifty times as long.
    return jnp.min(values, axis=1)


def _is_certain(centred, norms, cutoff, farthest):
    """Returns `[Q]` bool, True if every row as near as `farthest` was a candidate.

    Args:
      centred: `[Q, D]` floats, queries about the centre.
      norms: `[G]` floats, squared norms of the rows about the same centre.
      cutoff: `[Q]` floats, greatest possible nearness of a row that was no candidate.
      farthest: `[Q]` floats, squared distances of the last neighbours.
    """
    query_norms = jnp.sum(jnp.square(centred), axis=1)
    rounding = _rounding(query_norms, norms, farthest, centred.shape[1])
    return query_norms - cutoff - rounding > farthest


def _rounding(query_norms, norms, farthest, dim):
    """Returns a bound `[Q]` on the rounding of a distance up to `farthest`."""
    length = jnp.sqrt(query_norms)
    longest = jnp.sqrt(jnp.max(jnp.where(jnp.isfinite(norms), norms, 0.0)))
    # Upper bound on the length of a row as near as `farthest`.
    others = jnp.minimum(longest, length + jnp.sqrt(farthest))
    # A sum of D rounded products is off by D half-units in the last place at most, and
    # four sums are compared.
    return 2 * (dim + 4) * jnp.finfo(jnp.float32).eps * jnp.square(length + others)


def _nearest_chunks(queries, gallery, norms, centre, *, num_chunks, block):
    """Returns chunks `[Q, num_chunks]`, and `[Q]` the greatest nearness of others."""

    def block_maxima(_, rows_and_norms):
        rows, block_norms = rows_and_norms
        # The norm of the query is the same for all rows and does not change ranks.
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
    first_chunks = jnp.take_along_axis(groups, group, axis=1) * grouped.shape[1]
    return first_chunks + chunk, _last(values)


@functools.partial(jax.jit, static_argnames=("k", "block"))
def _search_all(queries, gallery, *, num_rows, k, block):
    """Returns distances and rows `[Q, k]` of a search that compares every row."""
    blocks = gallery.reshape(-1, block, gallery.shape[1])
    starts = jnp.arange(0, len(gallery), block)

    def search_one(query):
        def merge(best, block_and_start):
            rows = block_and_start[1] + jnp.arange(block)
            distances = jnp.sum(jnp.square(block_and_start[0] - query[None]), axis=1)
            distances = jnp.where(rows < num_rows, distances, jnp.inf)
            # The best so far come first, since `top_k` takes the first of equals.
            both = jnp.concatenate([best[0], distances])
            negated, order = jax.lax.top_k(-both, k)
            return (-negated, jnp.concatenate([best[1], rows])[order]), None

        nothing = jnp.full(k, jnp.inf), jnp.zeros(k, starts.dtype)
        return jax.lax.scan(merge, nothing, (blocks, starts))[0]

    return jax.lax.map(search_one, queries)
