"""Random augmentation of groups, e.g. of triplets.

Convention: changes that affect similarity (flip, colour, quarter turn) are drawn once
per group, the others (shift, zoom, rotation) once per image. Switching one off leaves
the draws of the others unchanged.
"""

import numpy as np

from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import cv2

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def augment_triplets(
    triplets: np.ndarray,
    rng: np.random.Generator,
    *,
    shift_pixels: int = 0,
    flip: bool = False,
    color_jitter: float = 0.0,
    zoom: float = 0.0,
    rotate_degrees: float = 0.0,
    quarter_turns: float = 0.0,
    swap_colors: float = 0.0,
) -> np.ndarray:
    """Augments triplets at random.

    Args:
      triplets: `[B, 3, H, W, 3]` uint8, RGB images with anchor, positive and negative
        on axis 1.
      rng: Generator; the number of draws does not depend on the options.
      shift_pixels: Largest shift of an image along both axes; edge pixels are repeated.
      flip: True to mirror half of the triplets left to right.
      color_jitter: Strength in [0, 1]; brightness, contrast and saturation of a triplet
        are each multiplied by a factor in `[1 - color_jitter, 1 + color_jitter]`.
      zoom: Strength of the scaling of an image about its centre, by a factor between
        `1 / (1 + zoom)` and `1 + zoom`; edge pixels are repeated.
      rotate_degrees: Largest rotation of an image in both directions.
      quarter_turns: Share of the groups that are turned, by 90, 180 or 270 degrees.
      swap_colors: Share of the groups whose colour channels change places.

    Returns:
      `[B, 3, H, W, 3]` uint8, in new memory.
    """
    num_triplets, num_images = triplets.shape[:2]
    flips = rng.random(num_triplets) < 0.5
    jitters = rng.uniform(-1.0, 1.0, (num_triplets, 3))
    positions = rng.random((num_triplets, num_images, 2))
    turns = rng.uniform(-1.0, 1.0, (num_triplets, num_images, 2))
    turned, recolored = rng.random((2, num_triplets))
    quarters = rng.integers(1, 4, num_triplets)
    orders = rng.permuted(np.tile(np.arange(3), (num_triplets, 1)), axis=1)
    augmented = np.array(triplets)
    for i in np.flatnonzero(turned < quarter_turns):
        augmented[i] = np.rot90(augmented[i], quarters[i], axes=(1, 2))
    for i in np.flatnonzero(recolored < swap_colors):
        augmented[i] = augmented[i][..., orders[i]]
    if color_jitter:
        for images, factors in zip(augmented, 1 + color_jitter * jitters, strict=True):
            for image in images:
                image[...] = _jitter(image, *factors)
    if flip:
        augmented[flips] = augmented[flips][..., ::-1, :]
    if shift_pixels:
        offsets = (positions * (2 * shift_pixels + 1)).astype(np.int64)
        augmented = _shift(augmented, offsets, shift_pixels)
    if zoom or rotate_degrees:
        for i, j in np.ndindex(num_triplets, num_images):
            scale, angle = (1 + zoom) ** turns[i, j, 0], rotate_degrees * turns[i, j, 1]
            augmented[i, j] = _transform(augmented[i, j], scale, angle)
    return augmented


def _jitter(
    image: np.ndarray, brightness: float, contrast: float, saturation: float
) -> np.ndarray:
    """Changes saturation, then contrast about the mean grey, then brightness."""
    # Together they are one affine map of a pixel's colour.
    matrix = saturation * np.eye(3) + (1 - saturation) * _GREY
    mean = float(np.dot(_GREY, cv2.mean(image)[:3]))
    offset = np.full((3, 1), brightness * (1 - contrast) * mean)
    affine = np.hstack([brightness * contrast * matrix, offset])
    return cv2.transform(image, affine)


def _shift(triplets: np.ndarray, offsets: np.ndarray, most: int) -> np.ndarray:
    """Crops windows at `offsets` in `[0, 2 * most]` from padded images."""
    height, width = triplets.shape[2:4]
    edges = ((0, 0), (0, 0), (most, most), (most, most), (0, 0))
    padded = np.pad(triplets, edges, mode="edge")
    shifted = np.empty_like(triplets)
    for (i, j), _ in np.ndenumerate(offsets[..., 0]):
        y, x = offsets[i, j]
        shifted[i, j] = padded[i, j, y : y + height, x : x + width]
    return shifted


def _transform(image: np.ndarray, scale: float, degrees: float) -> np.ndarray:
    """Scales and rotates an image about its centre."""
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    return cv2.warpAffine(
        image,
        cv2.getRotationMatrix2D(centre, degrees, scale),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
