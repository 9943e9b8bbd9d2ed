"""Pairs to train a similarity on: random unit vectors, and images with labels."""

import numpy as np

from deeprank_jax.errors import DataError

# Rounds of draws of distinct pairs, after which hardly one is left to be drawn.
_ROUNDS = 50


def draw_unit_pairs(
    rng: np.random.Generator, num: int, dim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Draws pairs of random unit vectors whose cosines are uniform in [-1, 1].

    Random vectors of many dimensions are nearly orthogonal, so the cosine is drawn
    first:

    .. math::
      b = c \, a + \sqrt{1 - c^2} \, u, \quad u \perp a, \; \lVert u \rVert = 1

    Args:
      rng: Generator of the draws.
      num: Number of pairs, N.
      dim: Number of dimensions D, at least 2.

    Returns:
      Both sides `[N, D]` float32, and the cosines c `[N]` float32.
    """
    a, u = rng.standard_normal((2, num, dim))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    u -= np.sum(a * u, axis=1, keepdims=True) * a
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    cosines = rng.uniform(-1.0, 1.0, (num, 1))
    b = cosines * a + np.sqrt(1.0 - cosines**2) * u
    return a.astype(np.float32), b.astype(np.float32), cosines[:, 0].astype(np.float32)


class LabelledPairs:
    """Pairs of images of one class, and of images of different classes."""

    def __init__(self, labels: np.ndarray, num_embeddings: int | None = None):
        """Sorts the images by class.

        Args:
          labels: `[N]` ints or texts, the class of each image; -1 or `""` for none.
          num_embeddings: Number of the images' embeddings; None if it is not known.

        Raises:
          DataError: There are no labels, one class only, or no two images of a class,
            or the numbers differ.
        """
        labels = np.asarray(labels)
        if num_embeddings not in (None, len(labels)):
            raise DataError(
                f"{num_embeddings:,} embeddings and {len(labels):,} labels: give one "
                "label, or an empty one, for each embedding."
            )
        is_text = labels.dtype.kind in "OUT"
        rows = np.flatnonzero(labels != ("" if is_text else -1))
        if not len(rows):
            raise DataError(
                f"None of the {len(labels):,} images has a label, and pairs to train "
                "on are of one class or of two: give images in one folder per class, "
                "or a list with the column 'label'."
            )
        _, classes = np.unique(labels[rows], return_inverse=True)
        # Images of a class lie side by side, from `_starts` on.
        order = np.argsort(classes, kind="stable")
        self._rows, classes = rows[order], classes[order]
        sizes = np.bincount(classes)
        if len(sizes) < 2:
            raise DataError(
                f"All {len(rows):,} images with a label are of one class, and pairs "
                "to train on are of one class or of two: give images of at least two."
            )
        if sizes.max() < 2:
            raise DataError(
                f"Each of the {len(sizes):,} classes has one image, so that no two "
                "images are similar: give at least two images of a class."
            )
        self._sizes = sizes[classes]
        self._starts = (np.cumsum(sizes) - sizes)[classes]
        self._anchors = np.flatnonzero(self._sizes > 1)

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws pairs, the first half of which are of one class.

        The first image is uniform among those that have another one of their class,
        the second uniform among those of its class, or of all other classes.

        Args:
          rng: Generator of the draws.
          num: Number of pairs, n; of an odd number, one more is of one class.

        Returns:
          Rows of the labels `[n, 2]`, and `[n]` bool, True for one class.
        """
        anchors, same, other = self.draw_triplets(rng, num).T
        is_similar = np.arange(num) < (num + 1) // 2
        return np.stack([anchors, np.where(is_similar, same, other)], 1), is_similar

    def draw_distinct(
        self, rng: np.random.Generator, num: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws pairs in random order, half of one class, none twice in either order.

        The first image of a pair is the one that was drawn first.

        Args:
          rng: Generator of the draws.
          num: Number of pairs, n; there are fewer if there are no more of a kind.

        Returns:
          Rows of the labels `[n, 2]`, and `[n]` bool, True for one class.
        """
        parts: tuple[dict[tuple[int, int], list[int]], ...] = ({}, {})
        sizes = num // 2, (num + 1) // 2
        for _ in range(_ROUNDS):
            pairs, is_similar = self.draw(rng, num)
            for (a, b), kind in zip(pairs.tolist(), is_similar, strict=True):
                if len(parts[int(kind)]) < sizes[int(kind)]:
                    parts[int(kind)].setdefault((min(a, b), max(a, b)), [a, b])
            if all(len(x) == size for x, size in zip(parts, sizes, strict=True)):
                break
        drawn = [np.array([*part.values()], np.int64).reshape(-1, 2) for part in parts]
        is_similar = np.repeat([False, True], [len(part) for part in drawn])
        order = rng.permutation(len(is_similar))
        return np.concatenate(drawn)[order], is_similar[order]

    def draw_triplets(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draws triplets: an image, another of its class, and one of another class.

        Args:
          rng: Generator of the draws.
          num: Number of triplets, n.

        Returns:
          Rows of the labels `[n, 3]`.
        """
        anchors = rng.choice(self._anchors, num)
        starts, sizes = self._starts[anchors], self._sizes[anchors]
        step = rng.integers(1, sizes)
        same = starts + (anchors - starts + step) % sizes
        other = rng.integers(0, len(self._rows) - sizes)
        other += np.where(other >= starts, sizes, 0)
        return self._rows[np.stack([anchors, same, other], axis=1)]
