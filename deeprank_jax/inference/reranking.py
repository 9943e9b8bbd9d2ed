"""Search of an index whose nearest images are put in order by a similarity."""

from collections.abc import Callable, Collection
import dataclasses

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.inference.images import AnyImage
from deeprank_jax.inference.index import Index
from deeprank_jax.inference.results import SearchResult, create_search_result

# Similarities `[N]` of embeddings `[N, D]` and `[N, D]`, larger being more similar.
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

NUM_RERANKED = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class RerankedResult:
    """Hits in the order of a similarity.

    Attributes:
      result: Hits, most similar first, with the distances of the index.
      scores: Similarity of each hit.
      num_reranked: Number of the nearest images that were put in order.
    """

    result: SearchResult
    scores: tuple[float, ...]
    num_reranked: int


def search_reranked(
    index: Index,
    image: AnyImage,
    score: Score,
    k: int = 10,
    *,
    num: int = NUM_RERANKED,
    labels: str | Collection[str] | None = None,
    include_query: bool = False,
) -> RerankedResult:
    """Finds the images nearest to one image, and puts them in order by a similarity.

    Equal similarities rank by distance. Verdicts and votes are by distance.

    Args:
      index: Index to search; it keeps the embeddings that are compared.
      image: Image to search with, see `Index.search`.
      score: Similarity of a query and an image.
      k: Number of hits, at least 1.
      num: Number of nearest images that are put in order; at least `k + 1` are.
      labels: Label, or labels, of the hits; None for any.
      include_query: True to keep the query, if its file is in the index.

    Raises:
      ArtifactError: The index is damaged.
      BadImageError: The image cannot be read.
      DataError: The index is empty, `k` is below 1, or a score is not finite.
    """
    if k < 1:
        raise DataError(f"k must be at least 1, got {k}.")
    query = index.model.embed([image])
    neighbors = index.vectors.search(query, max(num, k + 1), labels=labels)
    places = [i for i, path in enumerate(neighbors.ids[0]) if path is not None]
    paths = [str(neighbors.ids[0][i]) for i in places]
    vectors = index.vectors.vectors(paths)
    scores = score(np.repeat(query, len(vectors), axis=0), vectors)
    if not np.isfinite(scores).all():
        raise DataError(
            f"The similarity of {image} and the images near it is not finite: train "
            "the similarity again, at a lower rate."
        )
    order = np.argsort(-scores, kind="stable")
    ranked = [paths[i] for i in order]
    result = create_search_result(
        image,
        ranked,
        [neighbors.labels[0][i] for i in order],
        neighbors.distances[0][order],
        index.threshold,
        k=k,
        include_query=include_query,
        is_unfamiliar=index.model.is_unfamiliar(query[0]),
    )
    score_of = dict(zip(paths, scores.tolist(), strict=True))
    return RerankedResult(
        result=result,
        scores=tuple(score_of[hit.path] for hit in result),
        num_reranked=len(paths),
    )
