"""TFDS builder of views of places in photographs, from installed packages.

Convention: a place is a square of a photograph, and places lie in a grid, side by side.
A view shows a place nearer or farther, shifted, turned and in another light; views of
places side by side may share up to half of what they show.
"""

from collections.abc import Iterator
import io
import itertools
import math
from typing import TypedDict

import numpy as np
from PIL import Image

from deeprank_jax import errors
from deeprank_jax.data import splits
from deeprank_jax.data.sources.installed import package_folder
from deeprank_jax.data.sources.ordered_writer import OrderedWriter
from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import tensorflow_datasets as tfds

# Photographs of each split: package, and file in its folder.
_PHOTOS = {
    "train": {
        "astronaut": ("skimage", "data/astronaut.png"),
        "brick": ("skimage", "data/brick.png"),
        "coins": ("skimage", "data/coins.png"),
        "grass": ("skimage", "data/grass.png"),
        "motorcycle": ("skimage", "data/motorcycle_left.png"),
        "palace": ("sklearn", "datasets/images/china.jpg"),
        "rocket": ("skimage", "data/rocket.jpg"),
        "tissue": ("skimage", "data/ihc.png"),
    },
    "validation": {
        "flower": ("sklearn", "datasets/images/flower.jpg"),
        "moon": ("skimage", "data/moon.png"),
        "photographer": ("skimage", "data/camera.png"),
    },
    "test": {
        "cat": ("skimage", "data/chelsea.png"),
        "coffee": ("skimage", "data/coffee.png"),
        "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
        "gravel": ("skimage", "data/gravel.png"),
        "retina": ("skimage", "data/retina.jpg"),
    },
}
_PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
# Longest side of a photograph, in pixels.
_MAX_SIDE = 640
# Side of a place and of its views, in pixels.
_SIDE = 48
# Places along each side of a region.
_REGION = 3
_VIEWS = 6
# Standard deviation of grey, of 255, below which a place shows next to nothing.
_MIN_CONTRAST = 8.0
_MAX_SCALE = 1.25
_MAX_SHIFT = 6.0
_MAX_ANGLE = math.radians(15)
_MAX_GAIN = 0.15
_MAX_GAMMA = 1.3


class View(TypedDict):
    """Features of a view: its image as PNG, and what it shows, from coarse to fine."""

    image: bytes
    photograph: str
    region: str
    place: str
    name: str


class PhotoViews(tfds.core.GeneratorBasedBuilder):
    """Views of places in photographs: photograph > region > place."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Six views of each place."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Places of sixteen photographs, six views of each, cut from the sample "
                "pictures of scikit-image and scikit-learn. The splits share no "
                "photograph."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(_SIDE, _SIDE, 3), encoding_format="png"
                    ),
                    "photograph": tfds.features.Text(),
                    "region": tfds.features.Text(),
                    "place": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            homepage="https://scikit-image.org/docs/stable/api/skimage.data.html",
            license=(
                "Palace and flower are CC-BY 2.0, most others CC0, in the public "
                "domain or without known restrictions; see skimage.data and "
                "sklearn.datasets."
            ),
        )

    def _example_writer(self) -> OrderedWriter:
        return OrderedWriter(self.info.file_format)

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, View]]]:
        del dl_manager  # Unused: the packages are installed.
        return {split: self._generate_examples(split) for split in splits.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, View]]:
        return generate_views(split)


def generate_views(split: str) -> Iterator[tuple[str, View]]:
    """Yields key and features of each view of a split: place by place, six of each.

    Args:
      split: Name of the split, "train", "validation" or "test".

    Raises:
      MissingExtraError: A package with photographs is not installed.
      DataError: It lacks one of them.
    """
    for name, (module, file) in _PHOTOS[split].items():
        photo = _read_photo(module, file)
        for row, column, x, y in _places(photo):
            place = f"{name}_{row}_{column}"
            # The draws of a place depend on nothing but itself.
            rng = np.random.default_rng([*name.encode(), row, column])
            for view in range(_VIEWS):
                yield (
                    f"{place}_{view}",
                    {
                        "image": _draw_view(photo, x, y, rng),
                        "photograph": name,
                        "region": f"{name}_{row // _REGION}_{column // _REGION}",
                        "place": place,
                        "name": f"{name}, row {row}, column {column}",
                    },
                )


def _read_photo(module: str, file: str) -> Image.Image:
    """Returns a photograph in RGB, at most `_MAX_SIDE` pixels long."""
    path = package_folder(module, _PACKAGES[module], "train") / file
    if not path.is_file():
        raise errors.DataError(
            f"{path}: no such file; it belongs to {_PACKAGES[module]}, which another "
            "version may lack it: scikit-image 0.26 and scikit-learn 1.9 have all."
        )
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    photo.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    return photo


def _places(photo: Image.Image) -> Iterator[tuple[int, int, float, float]]:
    """Yields row, column and centre, in pixels, of each place that shows something."""
    # As far from the edge as the corner of the farthest view reaches.
    reach = _SIDE / 2 * _MAX_SCALE * math.sqrt(2) * math.cos(math.pi / 4 - _MAX_ANGLE)
    margin = reach + _MAX_SHIFT
    grey = np.asarray(photo.convert("L"), np.float32)
    rows, columns = (int((x - 2 * margin) // _SIDE) + 1 for x in grey.shape)
    for row, column in itertools.product(range(rows), range(columns)):
        x, y = (margin + i * _SIDE for i in (column, row))
        across, down = (slice(int(c - _SIDE / 2), int(c + _SIDE / 2)) for c in (x, y))
        if grey[down, across].std() >= _MIN_CONTRAST:
            yield row, column, x, y


def _draw_view(
    photo: Image.Image, x: float, y: float, rng: np.random.Generator
) -> bytes:
    """Returns a view of the place around a centre, encoded as PNG."""
    # Pixels of the photograph per pixel of the view.
    scale = _MAX_SCALE ** rng.uniform(-1, 1)
    angle = rng.uniform(-_MAX_ANGLE, _MAX_ANGLE)
    x += rng.uniform(-_MAX_SHIFT, _MAX_SHIFT)
    y += rng.uniform(-_MAX_SHIFT, _MAX_SHIFT)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    half = _SIDE / 2
    square = photo.transform(
        (_SIDE, _SIDE),
        Image.Transform.AFFINE,
        (
            cos,
            -sin,
            x - half * (cos - sin),
            sin,
            cos,
            y - half * (sin + cos),
        ),
        Image.Resampling.BICUBIC,
    )
    light = np.asarray(square, np.float64) / 255
    light = light ** (_MAX_GAMMA ** rng.uniform(-1, 1))
    light *= 1 + rng.uniform(-_MAX_GAIN, _MAX_GAIN, 3)
    pixels = np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()
