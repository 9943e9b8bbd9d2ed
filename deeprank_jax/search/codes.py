"""Binary codes of embeddings, and exact search by their Hamming distance."""

from collections.abc import Iterator
import dataclasses
import importlib.util

import numpy as np

from deeprank_jax.search import hnsw

_ITERATIONS = 50
# Queries that are searched at a time.
_BLOCK = 1024


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """Linear map of embeddings whose signs are the bits of a code.

    Attributes:
      matrix: `[D, B]` float32.
      thresholds: `[B]` float32; a bit is 1 where the mapped number is above it.
    """

    matrix: np.ndarray
    thresholds: np.ndarray

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns the codes `[N, ceil(B / 8)]` uint8 of embeddings `[N, D]`.

        Bits beyond the `B`-th are 0.
        """
        return encode_signs(self.numbers(embeddings))

    def numbers(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns the numbers `[N, B]` float32 whose signs are the codes' bits.

        Those of a query are more than its code: see `reorder_by_numbers`.
        """
        mapped = np.asarray(embeddings, np.float32) @ self.matrix
        return mapped - self.thresholds


def fit_hyperplanes(embeddings: np.ndarray, num_bits: int, *, seed: int = 0) -> Encoder:
    """Returns an encoder by random hyperplanes, whose bits are 1 for half of the rows.

    References:
      Charikar, Similarity Estimation Techniques from Rounding Algorithms, 2002,
      https://doi.org/10.1145/509907.509965.

    Args:
      embeddings: `[N, D]` floats, e.g. of training images.
      num_bits: Number of bits, at least 1.
      seed: Seed of the hyperplanes.
    """
    rows = np.asarray(embeddings, np.float32)
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows.shape[1], num_bits)).astype(np.float32)
    return _with_medians(rows, matrix)


def fit_itq(
    embeddings: np.ndarray,
    num_bits: int,
    *,
    seed: int = 0,
    iterations: int = _ITERATIONS,
) -> Encoder:
    """Returns an encoder by iterative quantization.

    Embeddings are centred and projected to their principal axes, and the rotation of
    these is learned that brings them nearest to the corners of a cube.

    References:
      Gong and Lazebnik, Iterative Quantization: A Procrustean Approach to Learning
      Binary Codes, 2011, https://doi.org/10.1109/CVPR.2011.5995432.

    Args:
      embeddings: `[N, D]` floats, e.g. of training images.
      num_bits: Number of bits, at most `D` and `N`.
      seed: Seed of the first rotation.
      iterations: Number of steps that improve it.

    Raises:
      ValueError: There are more bits than numbers or rows.
    """
    rows = np.asarray(embeddings, np.float64)
    if not 1 <= num_bits <= min(rows.shape):
        raise ValueError(
            f"num_bits must be from 1 to {min(rows.shape)}, the number or the length "
            f"of the embeddings, got {num_bits}."
        )
    mean = rows.mean(axis=0)
    axes = np.linalg.svd(rows - mean, full_matrices=False)[2][:num_bits].T
    projected = (rows - mean) @ axes
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(num_bits, num_bits)))[0]
    for _ in range(iterations):
        corners = np.where(projected @ rotation > 0, 1.0, -1.0)
        # The rotation that maps the projections nearest to their corners.
        left, _, right = np.linalg.svd(projected.T @ corners)
        rotation = left @ right
    matrix = axes @ rotation
    return Encoder(
        matrix=matrix.astype(np.float32),
        thresholds=(mean @ matrix).astype(np.float32),
    )


def fit_signs(embeddings: np.ndarray) -> Encoder:
    """Returns an encoder with a bit for each number: is it above the median.

    Args:
      embeddings: `[N, D]` floats, e.g. of training images.
    """
    rows = np.asarray(embeddings, np.float32)
    return _with_medians(rows, np.eye(rows.shape[1], dtype=np.float32))


def encode_signs(embeddings: np.ndarray) -> np.ndarray:
    """Returns codes with a bit for each number: is it above 0.

    They are the codes of networks that learned them, e.g. by the loss `hashing`; of
    others a number may be above 0 for nearly all images, see `fit_signs`.

    Args:
      embeddings: `[N, D]` floats.

    Returns:
      `[N, ceil(D / 8)]` uint8, as those of an `Encoder`.
    """
    return np.packbits(np.asarray(embeddings) > 0, axis=1)


def _with_medians(rows: np.ndarray, matrix: np.ndarray) -> Encoder:
    """Returns an encoder each of whose bits is 1 for half of the rows."""
    return Encoder(matrix=matrix, thresholds=np.median(rows @ matrix, axis=0))


def hamming_neighbors(
    queries: np.ndarray, gallery: np.ndarray, k: int, *, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Finds each query's `k` nearest codes, exactly; by FAISS, if it is installed.

    Args:
      queries: `[Q, W]` uint8, codes of an `Encoder`.
      gallery: `[G, W]` uint8.
      k: Number of neighbours, from 1 to `G`, or to `G - 1` with `exclude_self`.
      exclude_self: True if query `i` is gallery row `i`, which is left out.

    Returns:
      Numbers of bits that differ, `[Q, k]` int64, ascending, and the gallery's row
      numbers `[Q, k]` int64. Equal distances rank in gallery order.

    Raises:
      ValueError: `k` is out of range, or the codes differ in length.
    """
    blocks = [*hamming_blocks(queries, gallery, k, exclude_self=exclude_self)]
    empty = np.zeros((0, k), np.int64)
    _, distances, rows = zip(*blocks, strict=True) if blocks else ((), (), ())
    return np.concatenate([empty, *distances]), np.concatenate([empty, *rows])


def hamming_blocks(
    queries: np.ndarray, gallery: np.ndarray, k: int, *, exclude_self: bool = False
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Finds neighbours as `hamming_neighbors`, a block of queries at a time.

    Args:
      queries: `[Q, W]` uint8, codes of an `Encoder`.
      gallery: `[G, W]` uint8.
      k: Number of neighbours.
      exclude_self: True if query `i` is gallery row `i`, which is left out.

    Yields:
      The queries of a block, and their distances and rows, `[B, k]` int64.

    Raises:
      ValueError: `k` is out of range, or the codes differ in length.
    """
    if queries.shape[1:] != gallery.shape[1:] or queries.ndim != 2:
        raise ValueError(
            f"queries are {queries.shape} and the gallery is {gallery.shape}: codes of "
            "both must come from the same encoder."
        )
    most = len(gallery) - exclude_self
    if not 1 <= k <= most:
        raise ValueError(f"k must be from 1 to {most}, got {k}.")
    search = _search_by_faiss if _has_faiss() else _search_by_numpy
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(queries)))
        # One more, as the query itself may be among them.
        distances, rows = search(queries[block], gallery, k + exclude_self)
        if exclude_self:
            is_self = rows == np.arange(block.start, block.stop)[:, None]
            removed = np.where(is_self.any(axis=1), is_self.argmax(axis=1), k)
            others = np.arange(k + 1) != removed[:, None]
            distances, rows = (x[others].reshape(-1, k) for x in (distances, rows))
        yield block, distances, rows


def reorder_by_numbers(
    numbers: np.ndarray, gallery: np.ndarray, nearest: np.ndarray
) -> np.ndarray:
    """Orders the nearest codes of each query by the query's numbers.

    A code is the more similar, the larger the sum of the query's numbers, each with the
    sign of the code's bit. Nothing but the codes is needed of the gallery, and a number
    near its threshold, whose bit is left to chance, counts for little.

    References:
      Gordo et al., Asymmetric Distances for Binary Embeddings, 2014,
      https://doi.org/10.1109/TPAMI.2013.101.

    Args:
      numbers: `[Q, B]` floats of the queries, `Encoder.numbers`, or the embeddings of
        a network that learned codes.
      gallery: `[G, ceil(B / 8)]` uint8, codes.
      nearest: `[Q, k]` ints, rows of the gallery, as of `hamming_neighbors`.

    Returns:
      `[Q, k]`, the same rows of each query; of equal ones the first stays the first.

    Raises:
      ValueError: The codes are not as long as the queries.
    """
    num_bits = numbers.shape[1]
    if gallery.shape[1] != -(-num_bits // 8):
        raise ValueError(
            f"queries have {num_bits} numbers and codes {8 * gallery.shape[1]} bits: "
            "both must come from the same encoder."
        )
    reordered = np.empty_like(nearest)
    for i, rows in enumerate(nearest):
        bits = np.unpackbits(gallery[rows], axis=1, count=num_bits)
        scores = (2.0 * bits - 1.0) @ numbers[i]
        reordered[i] = rows[np.argsort(-scores, kind="stable")]
    return reordered


def _has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


def _search_by_faiss(
    queries: np.ndarray, gallery: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns distances and rows `[Q, k]`, as `hamming_neighbors`."""
    faiss = hnsw.import_faiss()
    index = faiss.IndexBinaryFlat(8 * gallery.shape[1])
    index.add(np.ascontiguousarray(gallery))
    distances, rows = index.search(np.ascontiguousarray(queries), k)
    # It has the right rows; equal distances are in no order.
    keys = np.sort(distances.astype(np.int64) * len(gallery) + rows, axis=1)
    return np.divmod(keys, len(gallery))


def _search_by_numpy(
    queries: np.ndarray, gallery: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns distances and rows `[Q, k]`, as `hamming_neighbors`."""
    columns = _as_words(gallery).T.copy()
    distances, rows = (np.empty((len(queries), k), np.int64) for _ in range(2))
    for i, words in enumerate(_as_words(queries)):
        differing = _differing_bits(words, columns)
        rows[i] = _smallest(differing, k)
        distances[i] = differing[rows[i]]
    return distances, rows


def _differing_bits(words: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the number of bits of each code that differ from those of a query.

    Args:
      words: `[W]` uint64, the query.
      columns: `[W, G]` uint64, the codes.

    Returns:
      `[G]` uint8, or uint32 where a code has more than 255 bits.
    """
    if len(columns) == 1:
        return np.bitwise_count(words[0] ^ columns[0])
    dtype = np.uint8 if 64 * len(columns) <= 255 else np.uint32
    differing = np.zeros(columns.shape[1], dtype)
    for word, column in zip(words, columns, strict=True):
        differing += np.bitwise_count(word ^ column)
    return differing


def _smallest(values: np.ndarray, k: int) -> np.ndarray:
    """Returns the places of the `k` smallest values, equal ones in their order."""
    largest = np.partition(values, k - 1)[k - 1]
    places = np.flatnonzero(values <= largest)
    return places[np.argsort(values[places], kind="stable")[:k]]


def _as_words(codes: np.ndarray) -> np.ndarray:
    """Returns codes as `[N, ceil(W / 8)]` uint64; bytes beyond the code are 0."""
    codes = np.asarray(codes, np.uint8)
    padding = -codes.shape[1] % 8
    return np.pad(codes, ((0, 0), (0, padding))).view(np.uint64)
