"""TFDS builder of handwritten digits in three sizes, from an installed package.

Convention: an original is one of the 1,797 handwritten digits of scikit-learn, 8 x 8
pixels. It is drawn once in each size, at a random place of a black square. A hash of
its number decides the split, so that all images of an original are in one split; the
ten digits, and the writers, are the same in all splits.

References:
  Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998,
  https://doi.org/10.24432/C50P49.
"""

from collections.abc import Iterator
import gzip
import io
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

_FILE = "datasets/data/digits.csv.gz"
# Side of an original, and its largest value.
_ORIGINAL_SIDE, _ORIGINAL_WHITE = 8, 16
# Side of an image, and sides of the digits in it, in pixels.
_SIDE = 32
SIZES = (14, 20, 28)
_SHARES = splits.Shares(test_share=0.3, validation_share=0.1)


class Digit(TypedDict):
    """Features of an image: its PNG file, its attributes, and its original."""

    image: bytes
    digit: int
    parity: str
    size: int
    original: int


class Digits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits in three sizes: parity > digit, and size."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "1,797 digits in three sizes."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "1,797 handwritten digits of scikit-learn, each drawn at 14, 20 and 28 "
                "pixels at a random place of 32 x 32 pixels. The splits share no "
                "handwritten digit, but all ten classes."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(_SIDE, _SIDE, 1), encoding_format="png"
                    ),
                    "digit": tfds.features.Scalar(np.int64),
                    "parity": tfds.features.Text(),
                    "size": tfds.features.Scalar(np.int64),
                    "original": tfds.features.Scalar(np.int64),
                }
            ),
            homepage="https://doi.org/10.24432/C50P49",
            license=(
                "See https://archive.ics.uci.edu/dataset/80; the file is that of "
                "scikit-learn, BSD-3-Clause."
            ),
        )

    def _example_writer(self) -> OrderedWriter:
        return OrderedWriter(self.info.file_format)

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, Digit]]]:
        del dl_manager  # Unused: the package is installed.
        return {split: self._generate_examples(split) for split in splits.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, Digit]]:
        return generate_digits(split)


def generate_digits(split: str) -> Iterator[tuple[str, Digit]]:
    """Yields key and features of each image of a split: original by original.

    Args:
      split: Name of the split, "train", "validation" or "test".

    Raises:
      MissingExtraError: scikit-learn is not installed.
      DataError: It lacks the digits.
    """
    originals, digits = read_originals()
    for number, (original, digit) in enumerate(zip(originals, digits, strict=True)):
        if splits.class_split(f"digits_{number}", _SHARES) != split:
            continue
        for size in SIZES:
            # The draws of an image depend on nothing but itself.
            rng = np.random.default_rng([number, size])
            yield (
                f"{number:04d}_{size}",
                {
                    "image": _draw_digit(original, size, rng),
                    "digit": int(digit),
                    "parity": "odd" if digit % 2 else "even",
                    "size": size,
                    "original": number,
                },
            )


def read_originals() -> tuple[np.ndarray, np.ndarray]:
    """Returns the originals, `[N, 8, 8]` uint8, and their digits, `[N]` ints.

    Raises:
      MissingExtraError: scikit-learn is not installed.
      DataError: It lacks the digits.
    """
    path = package_folder("sklearn", "scikit-learn", "train") / _FILE
    if not path.is_file():
        raise errors.DataError(
            f"{path}: no such file; it belongs to scikit-learn, which another version "
            "may lack it: scikit-learn 1.9 has it."
        )
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    values = table[:, :-1] * 255 / _ORIGINAL_WHITE
    originals = np.rint(values).astype(np.uint8)
    return originals.reshape(-1, _ORIGINAL_SIDE, _ORIGINAL_SIDE), table[:, -1]


def _draw_digit(original: np.ndarray, size: int, rng: np.random.Generator) -> bytes:
    """Returns an original in a size at a random place, encoded as PNG."""
    digit = Image.fromarray(original).resize((size, size), Image.Resampling.BICUBIC)
    x, y = (int(place) for place in rng.integers(0, _SIDE - size + 1, 2))
    image = Image.new("L", (_SIDE, _SIDE))
    image.paste(digit, (x, y))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
