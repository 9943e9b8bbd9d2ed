"""Heat maps drawn over images."""

import numpy as np
from PIL import Image

# Colours above and below 0, told apart without seeing red or green.
_ABOVE, _BELOW = np.array([255.0, 120.0, 0.0]), np.array([0.0, 110.0, 255.0])
# Share of colour at the largest value; of grey, how far it is lightened.
_OPACITY, _LIGHTENING = 0.8, 0.25


def draw_heat_map(image: np.ndarray, values: np.ndarray, largest: float) -> np.ndarray:
    """Returns an image in grey, coloured by values: orange above 0 and blue below.

    Args:
      image: `[H, W, 3]` uint8, image.
      values: `[h, w]` floats over the whole image, enlarged to it smoothly.
      largest: Magnitude with the full colour, above 0; larger ones have it, too.

    Returns:
      `[H, W, 3]` uint8.
    """
    size = image.shape[1], image.shape[0]
    enlarged = Image.fromarray(values.astype(np.float32)).resize(
        size, Image.Resampling.BICUBIC
    )
    strengths = np.clip(np.asarray(enlarged)[..., None] / largest, -1, 1)
    grey = image.mean(axis=2, keepdims=True)
    grey = grey + _LIGHTENING * (255 - grey)
    opacity = _OPACITY * np.abs(strengths)
    colors = np.where(strengths > 0, _ABOVE, _BELOW)
    return np.round(grey + opacity * (colors - grey)).astype(np.uint8)
