"""An exported model in use: from images to embeddings, and two images compared.

It runs the exported program and needs none of the code that trained it.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
import jax.export
import ml_collections
import numpy as np
from PIL import Image, ImageOps
import safetensors.numpy

from deeprank_jax import files
from deeprank_jax.data import decode as decode_lib
from deeprank_jax.inference import artifact

# A path, an encoded image, a PIL image or an array `[H, W]` or `[H, W, 1, 3 or 4]`.
AnyImage = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

# How many images a program takes: what is fewer is padded, so that few are compiled.
_FEW, BATCH_SIZE = 8, 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How similar two images are.

    Attributes:
      distance: squared Euclidean.
      cosine: of the two embeddings, in [-1, 1].
      threshold: up to which distance images are called similar; None if the model has
        none.
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


class Model:
    """Embeds images by an exported model.

    Attributes:
      artifact: the model's folder and what it says of itself.
      embedding_dim: the length of an embedding.
      image_size: of what the network sees, in pixels.
      threshold: up to which squared distance two images are called similar, or None:
        calibrated for pairs of which as many are of one class as not.
      cluster_distance: the same where one pair in ten is, as in a collection.
      fingerprint: tells its embeddings from those of any other model.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Reads an exported model.

        Args:
          path: its folder.

        Raises:
          ArtifactError: it is no exported model, or not as it was exported.
        """
        self.artifact = artifact.read_artifact(path)
        info = self.artifact.info
        self.fingerprint: str = info["fingerprint"]
        self.embedding_dim: int = info["agreement"]["dim"]
        self.image_size: int = info["preprocessing"]["image_size"]
        self.threshold: float | None = None
        if info["threshold"]:
            self.threshold = info["threshold"]["distance"]
        self.cluster_distance: float | None = info["cluster_distance"]
        code = bytearray(self.artifact.file(artifact.STABLEHLO).read_bytes())
        weights = safetensors.numpy.load_file(self.artifact.file(artifact.WEIGHTS))
        self._call = jax.jit(jax.export.deserialize(code).call)
        self._weights = jax.device_put(weights)

    def embed(self, images: AnyImage | Iterable[AnyImage]) -> np.ndarray:
        """Returns embeddings `[N, D]` float32, of one image `[1, D]`.

        Args:
          images: a path, an encoded image, a PIL image or an array `[H, W]`,
            `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]` of uint8 or uint16; or several of
            them, as a list or an array `[N, H, W, 3]`.

        Raises:
          BadImageError: an image cannot be used; the message names it.
        """
        several = _as_several(images)
        rows = [self._prepare(image, i) for i, image in enumerate(several)]
        if not rows:
            return np.zeros((0, self.embedding_dim), np.float32)
        return self.embed_prepared(np.stack(rows))

    def embed_prepared(self, images: np.ndarray) -> np.ndarray:
        """Returns embeddings `[N, D]` float32 of uint8 images `[N, S, S, 3]`.

        Args:
          images: of the size that the network sees.
        """
        size = BATCH_SIZE if len(images) > _FEW else _FEW
        starts = range(0, len(images), size)
        pieces = self.embed_batches(images[start : start + size] for start in starts)
        return np.concatenate([np.zeros((0, self.embedding_dim), np.float32), *pieces])

    def embed_batches(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the embeddings of each batch, while the next one is being prepared.

        Args:
          batches: uint8 `[n, S, S, 3]`, each of at most `BATCH_SIZE` images.
        """
        pending = None
        for batch in batches:
            size = _FEW if len(batch) <= _FEW else BATCH_SIZE
            padded = np.pad(batch, ((0, size - len(batch)), *((0, 0),) * 3))
            started = self._call(self._weights, padded), len(batch)
            if pending is not None:
                yield np.asarray(pending[0])[: pending[1]]
            pending = started
        if pending is not None:
            yield np.asarray(pending[0])[: pending[1]]

    def compare(self, one: AnyImage, other: AnyImage) -> Comparison:
        """Returns how similar two images are.

        Raises:
          BadImageError: an image cannot be used; the message names it.
        """
        a, b = self.embed([one, other]).astype(np.float64)
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        return Comparison(
            distance=float(np.sum(np.square(a - b))),
            cosine=float(a @ b / norms) if norms else 0.0,
            threshold=self.threshold,
        )

    @property
    def data_config(self) -> ml_collections.ConfigDict:
        """Returns the `config.data` of the run that was exported."""
        config = self.artifact.file(artifact.CONFIG).read_text(encoding="utf-8")
        return ml_collections.ConfigDict(json.loads(config)["data"])

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Returns how an image reaches the network: `image_size`, `fit`, and more."""
        return self.artifact.info["preprocessing"]

    def _prepare(self, image: AnyImage, index: int) -> np.ndarray:
        name = f"image {index}"
        if isinstance(image, (str, os.PathLike)):
            name = files.printable(image)
        pixels = decode(image, name, max_pixels=self.preprocessing["max_pixels"])
        fit = self.preprocessing["fit"]
        return decode_lib.resize_image(pixels, self.image_size, fit)


def _as_several(images: Any) -> Iterable[Any]:
    if isinstance(images, (str, os.PathLike, bytes, Image.Image)):
        return [images]
    if hasattr(images, "__array__"):
        array = np.asarray(images)
        return [array] if array.ndim < 4 else array
    return images if isinstance(images, Iterable) else [images]


def decode(
    image: AnyImage, name: str, *, max_pixels: int = decode_lib.MAX_PIXELS
) -> np.ndarray:
    """Returns an image as uint8 `[H, W, 3]`, upright.

    Args:
      image: a path, an encoded image, a PIL image or an array.
      name: what errors call it.
      max_pixels: larger images are refused.

    Raises:
      BadImageError: it cannot be used.
    """
    try:
        if isinstance(image, (str, os.PathLike)):
            data: bytes | np.ndarray = pathlib.Path(image).expanduser().read_bytes()
        elif isinstance(image, Image.Image):
            data = _pil_pixels(image)
        elif hasattr(image, "__array__"):
            data = np.asarray(image)
        elif isinstance(image, bytes):
            data = image
        else:
            raise decode_lib.BadImageError(
                f"is a {type(image).__name__}; expected a path, bytes, a PIL image or "
                "an array"
            )
        return decode_lib.decode_image(data, max_pixels=max_pixels)
    except decode_lib.BadImageError as error:
        raise decode_lib.BadImageError(f"{name}: {error}.") from error
    except OSError as error:
        raise decode_lib.BadImageError(
            f"{name}: cannot be read ({error.strerror or error}); give the path of an "
            "image."
        ) from error


def _pil_pixels(image: Image.Image) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("L", "RGB", "RGBA"):
        return np.asarray(upright)
    if upright.mode.startswith("I;16"):
        return np.asarray(upright, np.uint16)
    has_alpha = upright.has_transparency_data
    return np.asarray(upright.convert("RGBA" if has_alpha else "RGB"))
