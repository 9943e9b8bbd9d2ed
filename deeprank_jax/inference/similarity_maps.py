"""Maps of where two images are similar, by hiding parts of them.

Windows over an image are filled with its mean colour, one after another, and the map
has the fall of the cosine to the other image. It needs nothing but embeddings, and so
works for every network, also for those whose last feature map has a few pixels only.

References:
  Dong et al., Explainability for Content-Based Image Retrieval, CVPR Workshops 2019,
  who hide blocks of one image and average over those that cover a pixel. The maps of
  Stylianou et al., Visualizing Deep Similarity Networks, 2019,
  https://arxiv.org/abs/1901.00536, answer the same question from the last feature map.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import itertools
from typing import Any, Protocol

import numpy as np

from deeprank_jax.inference.images import AnyImage, decode, prepare
from deeprank_jax.progress import Progress, reporting

# Windows along each side of an image, and the side of one as a share of the image's.
_NUM_WINDOWS, _SHARE = 8, 0.25
# Windows whose images are in memory at a time; a model embeds as few together.
_BLOCK = 8


class Embedder(Protocol):
    """What a map needs of a model."""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Returns the preprocessing of images; see `Model`."""
        ...

    def embed_prepared(self, images: np.ndarray) -> np.ndarray:
        """Returns embeddings `[N, D]` of uint8 images `[N, S, S, 3]`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimilarityMaps:
    """Places where two images are similar.

    A value is the mean fall of the cosine where the place is hidden: above 0 it makes
    the images similar, below 0 unlike.

    Attributes:
      cosine: Cosine of the two embeddings, in [-1, 1].
      one: `[S, S]` float32, values of the first image, as the network sees it.
      other: `[S, S]` float32, values of the second image.
    """

    cosine: float
    one: np.ndarray
    other: np.ndarray


def find_maps(
    model: Embedder,
    one: AnyImage,
    others: Sequence[AnyImage],
    *,
    progress: Progress | None = None,
) -> list[SimilarityMaps]:
    """Returns the maps of an image beside each of the others.

    Args:
      model: Model that embeds.
      one: Image, see `Model.embed`.
      others: Images.
      progress: Function that receives the number of images whose parts were hidden;
        None for a bar on a terminal.

    Raises:
      BadImageError: An image cannot be read; the message names it.
    """
    images, contents = zip(
        *(
            _prepare(image, f"image {i}", model.preprocessing)
            for i, image in enumerate([one, *others])
        ),
        strict=True,
    )
    windows = _create_windows(images[0].shape[0])
    rows = _embed(model, images)
    hidden_rows = []
    with reporting(len(images), "hide parts", progress) as advance:
        for image, content in zip(images, contents, strict=True):
            hidden_rows.append(_embed(model, _hide_each(image, windows, content)))
            advance(1)
    return [
        SimilarityMaps(
            cosine=float(rows[0] @ row),
            one=_spread(rows[0] @ row - hidden_rows[0] @ row, windows, contents[0]),
            other=_spread(rows[0] @ row - hidden @ rows[0], windows, content),
        )
        for row, hidden, content in zip(
            rows[1:], hidden_rows[1:], contents[1:], strict=True
        )
    ]


def hide(image: np.ndarray, window: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Returns an image with its mean colour in the place of a window.

    Args:
      image: `[S, S, 3]` uint8.
      window: `[S, S]` in [0, 1], 1 where the image is hidden.
      content: `[S, S]` bool, False for a border, which stays.

    Returns:
      `[S, S, 3]` uint8.
    """
    mean = image[content].mean(axis=0, dtype=np.float32)
    change = (window * content)[..., None].astype(np.float32) * (mean - image)
    return np.round(image + change).astype(np.uint8)


def _prepare(
    image: AnyImage, name: str, preprocessing: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image as the network sees it, and a mask `[S, S]` of its content."""
    prepared = prepare(image, name, preprocessing)
    if preprocessing["fit"] != "pad":
        return prepared, np.ones(prepared.shape[:2], bool)
    decoded = decode(image, name, max_pixels=preprocessing["max_pixels"])
    # A black image of the same shape has a white border.
    border = prepare(np.zeros_like(decoded), name, preprocessing)
    return prepared, border[..., 0] < 128


def _hide_each(
    image: np.ndarray, windows: np.ndarray, content: np.ndarray
) -> Iterator[np.ndarray]:
    """Yields the image with each window hidden."""
    for window in windows:
        yield hide(image, window, content)


def _embed(model: Embedder, images: Iterable[np.ndarray]) -> np.ndarray:
    """Returns embeddings `[N, D]`, of length 1 or all 0."""
    blocks = iter(images)
    rows = []
    while block := list(itertools.islice(blocks, _BLOCK)):
        rows.append(model.embed_prepared(np.stack(block)))
    joined = np.concatenate(rows)
    lengths = np.linalg.norm(joined, axis=1, keepdims=True)
    return joined / np.where(lengths > 0, lengths, 1)


def _create_windows(size: int) -> np.ndarray:
    """Returns overlapping windows with soft edges, `[M, size, size]` in [0, 1].

    Every pixel lies in some of them.
    """
    num = min(_NUM_WINDOWS, size)
    centres = (np.arange(num) + 0.5) * size / num
    distances = np.abs(np.arange(size) + 0.5 - centres[:, None])
    edge = size / num / 2
    sides = np.clip((_SHARE * size / 2 + edge / 2 - distances) / edge, 0, 1)
    sides = sides.astype(np.float32)
    windows = sides[:, None, :, None] * sides[None, :, None, :]
    return windows.reshape(num * num, size, size)


def _spread(falls: np.ndarray, windows: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Returns the mean value `[S, S]` of the windows that cover a pixel.

    It is 0 outside the content.
    """
    means = np.tensordot(falls, windows, axes=1) / windows.sum(axis=0)
    return np.where(content, means, 0).astype(np.float32)
