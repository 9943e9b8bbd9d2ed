"""Generated pictures, to measure a network where there are no images."""

import numpy as np

from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import cv2

_SIZE = 320
_NUM_SHAPES = 12


def draw_images(num: int, *, seed: int = 0) -> list[np.ndarray]:
    """Returns pictures of coloured shapes on a gradient, with a grain.

    Args:
      num: Number of pictures.
      seed: Seed of all draws.

    Returns:
      `num` arrays `[320, 320, 3]` uint8.
    """
    rng = np.random.default_rng(seed)
    return [_draw_image(rng) for _ in range(num)]


def _draw_image(rng: np.random.Generator) -> np.ndarray:
    slope = np.linspace(0, 1, _SIZE)[:, None, None]
    first, last = rng.uniform(0, 255, (2, 1, 1, 3))
    image = np.ascontiguousarray(
        np.broadcast_to(first + slope * (last - first), (_SIZE, _SIZE, 3))
    )
    for _ in range(_NUM_SHAPES):
        color = rng.uniform(0, 255, 3).tolist()
        centre = rng.integers(0, _SIZE, 2)
        if rng.random() < 0.5:
            axes = rng.integers(8, _SIZE // 4, 2).tolist()
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(image, centre.tolist(), axes, angle, 0, 360, color, -1)
        else:
            corners = centre + rng.integers(-_SIZE // 4, _SIZE // 4, (5, 2))
            cv2.fillPoly(image, [corners.astype(np.int32)], color)
    grain = cv2.GaussianBlur(rng.normal(0, 24, image.shape), (0, 0), 1.0)
    return np.clip(image + grain, 0, 255).astype(np.uint8)
