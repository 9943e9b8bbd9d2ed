"""Which rows of a gallery that stays on the device lie nearest? Exact, two levels deep.

Distances are squared Euclidean. Equal distances rank in gallery order.

One matrix product after another leaves only the greatest nearness of every chunk of
rows. The chunks with the greatest are then measured row by row, and a bound on the
rounding tells whether another chunk could hold a row as near; if so, that query is
measured against everything.
"""

from collections.abc import Iterable
import functools

import jax
import jax.numpy as jnp
import numpy as np

# Rows of a chunk, of a group of chunks, and of a block. A block's products are to fit
# the cache: 4 MiB with 256 queries.
_CHUNK, _GROUP, _BLOCK = 16, 512, 4096
_MAX_QUERIES = 256
# Chunks beyond k, so that rounding in the matrix product seldom leaves a doubt.
_SPARE = 8
# Rows whose median is taken for the middle.
_NUM_MIDDLE = 1024
# float32 values that the chunks measured row by row may hold: 128 MiB.
_MEASURED_VALUES = 2**25


class ExactSearch:
    """A gallery on the device, to be searched again and again."""

    def __init__(self, parts: Iterable[np.ndarray], num_rows: int, dim: int):
        """Puts the gallery on the device.

        Args:
          parts: arrays `[n, D]` of finite float32, which one after another are the
            gallery.
          num_rows: how many rows they have together, at least 1.
          dim: D.
        """
        padded = np.zeros((_padded_size(num_rows), dim), np.float32)
        start = 0
        for part in parts:
            padded[start : start + len(part)] = part
            start += len(part)
        self.num_rows = num_rows
        self._block = min(_BLOCK, len(padded))
        # Rounding grows with the norms, which are small around the middle of the rows.
        some = padded[: self.num_rows : -(-num_rows // _NUM_MIDDLE)]
        self._centre = jnp.asarray(np.median(some, axis=0))
        # `jnp.asarray` would copy it twice.
        self._gallery = jax.device_put(padded)
        self._norms = _square_norms(
            self._gallery, self._centre, num_rows, block=self._block
        )

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
        size = self._queries_at_once(k)
        for start in range(0, len(queries), size):
            part = slice(start, min(start + size, len(queries)))
            distances[part], rows[part] = self._search_some(queries[part], k)
        return distances, rows

    def _queries_at_once(self, k: int) -> int:
        measured = (k + _SPARE) * _CHUNK * self._gallery.shape[1]
        most = max(1, min(_MAX_QUERIES, _MEASURED_VALUES // measured))
        return 1 << (most.bit_length() - 1)

    def _search_some(
        self, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        num_chunks = k + _SPARE
        options = dict(num_rows=self.num_rows, k=k, block=self._block)
        if 2 * num_chunks * _CHUNK > len(self._gallery):
            return self._search_directly(queries, options)
        found = _search_chunks(
            _pad(queries),
            self._gallery,
            self._norms,
            self._centre,
            num_chunks=num_chunks,
            **options,
        )
        distances, rows, is_certain = (np.array(x)[: len(queries)] for x in found)
        doubtful = np.flatnonzero(~is_certain)
        if len(doubtful):
            again = self._search_directly(queries[doubtful], options)
            distances[doubtful], rows[doubtful] = again
        return distances, rows

    def _search_directly(
        self, queries: np.ndarray, options: dict[str, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        found = _search_all(_pad(queries), self._gallery, **options)
        distances, rows = (np.asarray(x)[: len(queries)] for x in found)
        return distances, rows


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


@functools.partial(jax.jit, static_argnames=("num_chunks", "k", "block"))
def _search_chunks(queries, gallery, norms, centre, *, num_rows, num_chunks, k, block):
    """Returns distances and rows `[Q, k]`, and whether each query's are certain."""
    centred = queries - centre[None]
    chunks, cutoff = _nearest_chunks(
        centred, gallery, norms, centre, num_chunks=num_chunks, block=block
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
    own_norms = jnp.sum(jnp.square(centred), axis=1)
    rounding = _rounding(own_norms, norms, -negated[:, -1], gallery.shape[1])
    is_certain = own_norms - cutoff - rounding > -negated[:, -1]
    return -negated, jnp.take_along_axis(rows, order, axis=1), is_certain


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
    return chosen, values[:, -1]


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
