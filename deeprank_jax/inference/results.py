"""Results of an exported model: comparisons, embeddings, hits and groups."""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from deeprank_jax.search import votes as votes_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Similarity of two images.

    Attributes:
      distance: Squared Euclidean distance of the two embeddings.
      cosine: Cosine of the two embeddings, in [-1, 1].
      threshold: Largest distance of two similar images; None if the model has none.
    """

    distance: float
    cosine: float
    threshold: float | None

    @property
    def is_similar(self) -> bool | None:
        """Returns the verdict, None without a threshold."""
        return None if self.threshold is None else self.distance <= self.threshold

    def __str__(self) -> str:
        """Returns one line."""
        verdict = {True: "similar", False: "not similar", None: "no verdict"}
        return (
            f"{verdict[self.is_similar]}: squared distance {self.distance:.4f}"
            + (f" (threshold {self.threshold:.4f})" if self.threshold else "")
            + f", cosine {self.cosine:.4f}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedImages:
    """Embeddings of the readable images of a folder or list.

    Attributes:
      embeddings: `[N, D]` float32, one row per image.
      paths: Paths of the `N` images.
      labels: Labels of the `N` images, `""` for an image without one.
      unreadable: Paths of the images that could not be read.
    """

    embeddings: np.ndarray
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Returns the number of embeddings."""
        return len(self.embeddings)

    def __repr__(self) -> str:
        """Returns the numbers of images and dimensions."""
        num, dim = self.embeddings.shape
        text = f"{num:,} images, {dim} dimensions, {len(self.unreadable):,} unreadable"
        return f"<EmbeddedImages: {text}>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hit:
    """One image of a search result.

    Attributes:
      path: Path of the image; for a TFDS dataset its description there.
      label: Label of the image, `""` without one.
      distance: Distance to the query: squared Euclidean, or 1 - cosine in an index of
        that metric.
      is_similar: Verdict, True up to the threshold of the result; None without one.
    """

    path: str
    label: str
    distance: float
    is_similar: bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Nearest images of one query; iterates over its hits.

    Attributes:
      hits: Nearest images, nearest first.
      threshold: Largest distance of similar images in a collection, where one pair in
        ten is of one class; None if the model has none.
      votes: Labels with their share of the vote, largest first. A hit votes with
        `exp(-distance / threshold)`.
    """

    hits: tuple[Hit, ...]
    threshold: float | None
    votes: tuple[tuple[str, float], ...]

    def __len__(self) -> int:
        """Returns the number of hits."""
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        """Yields the hits."""
        return iter(self.hits)

    def __getitem__(self, index: int) -> Hit:
        """Returns a hit by its rank from 0."""
        return self.hits[index]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageGroup:
    """Images that belong together.

    Attributes:
      paths: Paths of the images.
      labels: Labels of the images, `""` for an image without one.
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.paths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageGroups:
    """Groups of images; iterates over them, the largest first.

    Attributes:
      groups: Groups, the largest first.
      num_images: Number of images that were read, in a group or not.
      max_distance: Squared distance that the groups were formed with; None where a
        number of groups was asked for.
    """

    groups: tuple[ImageGroup, ...]
    num_images: int
    max_distance: float | None

    def __len__(self) -> int:
        """Returns the number of groups."""
        return len(self.groups)

    def __iter__(self) -> Iterator[ImageGroup]:
        """Yields the groups."""
        return iter(self.groups)

    def __getitem__(self, index: int) -> ImageGroup:
        """Returns a group by its place from 0."""
        return self.groups[index]

    @property
    def num_copies(self) -> int:
        """Returns the number of images beyond the first of each group."""
        return sum(len(group) - 1 for group in self.groups)


def create_search_result(
    paths: Sequence[str],
    labels: Sequence[str],
    distances: Sequence[float],
    threshold: float | None,
) -> SearchResult:
    """Returns hits with their verdicts and votes.

    Args:
      paths: Paths of the `k` images, nearest first.
      labels: Labels of the `k` images.
      distances: `[k]` distances to the query.
      threshold: Largest distance of similar images, None without one.
    """
    hits = tuple(
        Hit(
            path=path,
            label=label,
            distance=distance,
            is_similar=None if threshold is None else distance <= threshold,
        )
        for path, label, distance in zip(paths, labels, distances, strict=True)
    )
    votes = votes_lib.vote(labels, np.asarray(distances), threshold or 1.0)
    return SearchResult(hits=hits, threshold=threshold, votes=tuple(votes))
