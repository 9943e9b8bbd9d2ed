"""Distinct rows of an index: rows of equal numbers are known by one node.

A graph holds each node once, since equal rows would use up one another's links.
"""

import hashlib

import numpy as np

_DIGEST_BYTES = 16


class DistinctRows:
    """The node of each row, and a lookup of the nodes by their contents.

    Attributes:
      nodes: `[N]` int32, node of each row; new nodes are numbered in the order of rows.
      num_nodes: Number of distinct rows.
    """

    def __init__(self, nodes: np.ndarray | None = None):
        """Starts with the nodes of earlier rows, or empty.

        Args:
          nodes: `[N]` int32, as saved; their contents are then given to `remember`.
        """
        self.nodes = np.empty(0, np.int32) if nodes is None else nodes
        self.num_nodes = int(self.nodes.max(initial=-1)) + 1
        self._by_digest: dict[bytes, int] = {}

    @property
    def is_remembered(self) -> bool:
        """True if the lookup holds every node."""
        return len(self._by_digest) == self.num_nodes

    def remember(self, rows: np.ndarray) -> None:
        """Adds the contents of the next nodes to the lookup.

        Args:
          rows: `[n, D]` float32, in the order of nodes.
        """
        for digest in _digests(rows):
            self._by_digest.setdefault(digest, len(self._by_digest))

    def add(self, rows: np.ndarray) -> np.ndarray:
        """Appends rows and returns those that are the first of their kind.

        Args:
          rows: `[n, D]` float32.

        Returns:
          `[m]` indices of the rows that are new nodes, ascending.
        """
        nodes = np.empty(len(rows), np.int32)
        new = []
        for index, digest in enumerate(_digests(rows)):
            node = self._by_digest.setdefault(digest, self.num_nodes)
            if node == self.num_nodes:
                new.append(index)
                self.num_nodes += 1
            nodes[index] = node
        self.nodes = np.concatenate([self.nodes, nodes])
        return np.array(new, np.int64)


class RowsOfNodes:
    """Rows of each node that may be returned."""

    def __init__(self, nodes: np.ndarray, num_nodes: int, is_allowed: np.ndarray):
        """Lists the rows.

        Args:
          nodes: `[N]` int32, node of each row.
          num_nodes: Number of nodes.
          is_allowed: `[N]` bool, True for rows that may be returned.
        """
        allowed = np.flatnonzero(is_allowed)
        self._counts = np.bincount(nodes[allowed], minlength=num_nodes)
        self._starts = np.cumsum(self._counts) - self._counts
        self._rows = allowed[np.argsort(nodes[allowed], kind="stable")]

    @property
    def is_allowed(self) -> np.ndarray:
        """Returns `[num_nodes]` bool, True for nodes with a row."""
        return self._counts > 0

    def expand(
        self, distances: np.ndarray, nodes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of the nearest nodes, of one node in the order of adding.

        Args:
          distances: `[Q, k]` float32, ascending.
          nodes: `[Q, k]`, -1 for no node.

        Returns:
          Distances `[Q, k]` float32 and rows `[Q, k]` int64 of the first `k` rows per
          query; infinite and -1 where there are fewer.
        """
        k = nodes.shape[1]
        counts = np.where(nodes >= 0, self._counts[nodes], 0)
        # Rows of a node that are still among the first k.
        before = np.cumsum(counts, axis=1) - counts
        counts = np.clip(k - before, 0, counts)
        repeats = counts.ravel()
        firsts = np.cumsum(repeats) - repeats
        within_node = np.arange(repeats.sum()) - np.repeat(firsts, repeats)
        numbers = np.repeat(self._starts[nodes].ravel(), repeats) + within_node
        is_filled = np.arange(k) < counts.sum(axis=1, keepdims=True)
        row_distances = np.full(nodes.shape, np.inf, np.float32)
        row_distances[is_filled] = np.repeat(distances.ravel(), repeats)
        rows = np.full(nodes.shape, -1, np.int64)
        rows[is_filled] = self._rows[numbers]
        return row_distances, rows


def _digests(rows: np.ndarray) -> list[bytes]:
    # -0 becomes 0, which is as far from everything.
    content = np.ascontiguousarray(rows + np.float32(0))
    return [
        hashlib.blake2b(row, digest_size=_DIGEST_BYTES).digest()
        for row in content.view(np.uint8)
    ]
