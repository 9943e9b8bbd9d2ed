"""Results of an exported model: comparisons, embeddings, hits and groups."""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.inference import queries
from deeprank_jax.inference.images import AnyImage
from deeprank_jax.search import votes as votes_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Similarity of two images.

    Attributes:
      distance: Squared Euclidean distance of the two embeddings.
      cosine: Cosine of the two embeddings, in [-1, 1].
      threshold: Largest distance of two similar images; None without a verdict.
      no_verdict: Reason that there is no verdict; empty with one, or if the model does
        not give a reason.
    """

    distance: float
    cosine: float
    threshold: float | None
    no_verdict: str = ""

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
            + (f"; {self.no_verdict}" if self.no_verdict else "")
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
      hits: Nearest images, nearest first; of a re-ranked search the most similar first.
      threshold: Largest distance of similar images in a collection, where one pair in
        ten is of one class; None without verdicts.
      votes: Labels with their share of the vote, largest first. A hit votes with
        `exp(-distance / threshold)`.
      left_out: Path of the query itself in the collection, which is neither a hit nor a
        voter; None if it is not among the nearest, or was asked for.
      is_unfamiliar: True if the query is far from all images that the model is known
        to be right for, so that no hit has a verdict; None if that is not known.
    """

    hits: tuple[Hit, ...]
    threshold: float | None
    votes: tuple[tuple[str, float], ...]
    left_out: str | None = None
    is_unfamiliar: bool | None = None

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
      distances: Squared distance of each image to the first, which is the one to keep,
        if they are copies; else empty.
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    distances: tuple[float, ...] = ()

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexChanges:
    """Numbers of images that were added, embedded again, removed and unreadable."""

    added: int
    updated: int
    removed: int
    unreadable: int = 0


def create_comparison(
    rows: np.ndarray,
    threshold: float | None,
    no_threshold: str,
    *unfamiliar: bool | None,
) -> Comparison:
    """Returns the comparison of two images.

    Args:
      rows: `[2, D]` their embeddings.
      threshold: Largest distance of two similar images; None if the model has none.
      no_threshold: Reason that the model has none; may be empty.
      *unfamiliar: For each image True if it is unlike all images of training.
    """
    a, b = rows.astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    reason = no_threshold if threshold is None else ""
    if threshold is not None and any(unfamiliar):
        threshold, reason = None, "both images are"
        if not all(unfamiliar):
            reason = f"the {'first' if unfamiliar[0] else 'second'} image is"
        reason += " unlike all images of training"
    return Comparison(
        distance=float(np.sum(np.square(a - b))),
        cosine=float(a @ b / norms) if norms else 0.0,
        threshold=threshold,
        no_verdict=reason,
    )


def create_search_result(
    image: AnyImage,
    paths: Sequence[str],
    labels: Sequence[str],
    distances: np.ndarray,
    threshold: float | None,
    *,
    k: int | None,
    include_query: bool,
    is_unfamiliar: bool | None = None,
) -> SearchResult:
    """Returns hits with their verdicts and votes.

    Args:
      image: Query.
      paths: Paths of the nearest images, nearest first.
      labels: Labels of these images.
      distances: Distances to the query.
      threshold: Largest distance of similar images, None without one.
      k: Number of hits; None for all.
      include_query: True to keep the query's own file among the hits.
      is_unfamiliar: Property of the result, see `SearchResult`.
    """
    is_query = queries.find_query(image, paths)
    is_hit = np.full(len(paths), True) if include_query else ~is_query
    places = np.flatnonzero(is_hit)[:k].tolist()
    scale, threshold = threshold or 1.0, None if is_unfamiliar else threshold
    hits = tuple(
        Hit(
            path=paths[i],
            label=labels[i],
            distance=float(distances[i]),
            is_similar=None if threshold is None else bool(distances[i] <= threshold),
        )
        for i in places
    )
    votes = votes_lib.vote([x.label for x in hits], distances[places], scale)
    left_out = [path for path, hit in zip(paths, is_hit, strict=True) if not hit]
    return SearchResult(
        hits=hits,
        threshold=threshold,
        votes=tuple(votes),
        left_out=left_out[0] if left_out else None,
        is_unfamiliar=is_unfamiliar,
    )


def create_groups(
    records: Records,
    groups: Sequence[np.ndarray],
    num_images: int,
    max_distance: float | None,
    distances: Sequence[tuple[float, ...]] = (),
) -> ImageGroups:
    """Returns groups of records.

    Args:
      records: Images.
      groups: Indices of the records of each group.
      num_images: Number of images that were read.
      max_distance: Property of the result, see `ImageGroups`.
      distances: Distances of each group to its first image; empty for none.
    """
    return ImageGroups(
        groups=tuple(
            ImageGroup(
                paths=paths_of(records, group),
                labels=labels_of(records, group),
                distances=distances[i] if distances else (),
            )
            for i, group in enumerate(groups)
        ),
        num_images=num_images,
        max_distance=max_distance,
    )


def paths_of(records: Records, indices: np.ndarray) -> tuple[str, ...]:
    """Returns the paths of records."""
    return tuple(records.describe(int(i)) for i in indices)


def labels_of(records: Records, indices: np.ndarray) -> tuple[str, ...]:
    """Returns the labels of records."""
    return tuple(records.label_name(int(i)) for i in indices)
