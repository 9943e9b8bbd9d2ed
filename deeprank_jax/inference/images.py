"""Image inputs of an exported model: paths, bytes, PIL images and arrays."""

from collections.abc import Iterable, Mapping
import os
from typing import Any

import numpy as np
from PIL import Image

from deeprank_jax import files
from deeprank_jax.data import decode as decode_lib

# A path, an encoded image, a PIL image or an array `[H, W]` or `[H, W, 1, 3 or 4]`.
AnyImage = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

_REMEDY = "; give an image that is JPEG, PNG, WebP, AVIF, BMP, TIFF or GIF"


def as_sequence(images: AnyImage | Iterable[AnyImage]) -> list[AnyImage]:
    """Returns one or several images as a list.

    Args:
      images: An image, or an iterable of images, e.g. a list, a NumPy array of paths,
        a pandas Series or an array `[N, H, W, 3]`.
    """
    if isinstance(images, (str, os.PathLike, bytes, Image.Image)):
        return [images]
    if hasattr(images, "__array__"):
        array = np.asarray(images)
        if array.dtype.kind in "OTU":
            return array.reshape(-1).tolist()
        return [array] if array.ndim < 4 else list(array)
    # The decoder names the type of a value that is no image.
    return list(images) if isinstance(images, Iterable) else [images]


def decode(
    image: AnyImage, name: str, *, max_pixels: int = decode_lib.MAX_PIXELS
) -> np.ndarray:
    """Returns an image as uint8 `[H, W, 3]`, upright.

    Args:
      image: Image as a path, encoded bytes, a PIL image or an array.
      name: Name of the image in error messages.
      max_pixels: Largest number of pixels; larger images are refused.

    Raises:
      BadImageError: The image cannot be read.
    """
    data: bytes | np.ndarray | Image.Image
    try:
        if isinstance(image, (str, os.PathLike)):
            data = files.read_bytes(os.path.expanduser(image), decode_lib.MAX_BYTES)
        elif isinstance(image, Image.Image):
            data = image
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
        remedy = "" if ";" in str(error) or ": " in str(error) else _REMEDY
        raise decode_lib.BadImageError(f"{name}: {error}{remedy}.") from error
    except OSError as error:
        raise decode_lib.BadImageError(
            f"{name}: cannot be read ({error.strerror or error}); give the path of an "
            "image."
        ) from error


def prepare(
    image: AnyImage,
    name: str,
    preprocessing: Mapping[str, Any],
    size: int | None = None,
) -> np.ndarray:
    """Returns an image as a network sees it, uint8 `[size, size, 3]`.

    Args:
      image: Image, see `decode`; of a path the message has the path.
      name: Name of the image in error messages.
      preprocessing: `image_size`, `fit` and `max_pixels` of the model.
      size: Side in pixels; None for that of the network.

    Raises:
      BadImageError: The image cannot be read.
    """
    if isinstance(image, (str, os.PathLike)):
        name = files.printable(image)
    decoded = decode(image, name, max_pixels=preprocessing["max_pixels"])
    side = preprocessing["image_size"] if size is None else size
    return decode_lib.resize_image(decoded, side, preprocessing["fit"])
