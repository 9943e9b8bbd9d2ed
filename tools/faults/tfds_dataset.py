"""Damaged files of a prepared TFDS dataset."""

import pathlib
from unittest import mock

import cv2
import numpy as np
import tensorflow_datasets as tfds

from deeprank_jax.data.sources import tfds as source
from deeprank_jax.data.sources import tfds_dataset
from tools.faults.samples import Samples
from tools.faults.stored import Stored, digest

_NUM_IMAGES, _CLASSES = 24, ("ant", "bee", "cat", "dog", "elk", "fox")


class _Animals(tfds.core.GeneratorBasedBuilder):
    """A few small images of six classes, in two splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(names=_CLASSES),
            "photographer": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager: object) -> dict[str, object]:
        return {"train": self._generate_examples(0), "test": self._generate_examples(1)}

    def _generate_examples(self, seed: int):
        rng = np.random.default_rng(seed)
        for number in range(_NUM_IMAGES):
            image = rng.integers(0, 256, (8, 8, 3), np.uint8)
            yield (
                number,
                {
                    "image": cv2.imencode(".png", image)[1].tobytes(),
                    "label": number % len(_CLASSES),
                    "photographer": f"person {number % 3}",
                },
            )


class PreparedTfds(Stored):
    """A TFDS dataset that was prepared once and is read by every run."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Prepares the dataset."""
        self._create_records(folder)

    def read(self, folder: pathlib.Path) -> object:
        """Returns labels, names and images of each split."""
        result = {}
        for split, records in self._create_records(folder).items():
            images = [records.read(i) for i in range(len(records))]
            result[split] = (
                digest(records.labels, *records.columns.values()),
                records.label_names,
                [records.describe(i) for i in range(len(records))],
                [digest(np.frombuffer(image, np.uint8)) for image in images],
            )
        return result

    def _create_records(self, folder: pathlib.Path):
        with mock.patch.dict(tfds_dataset._BUILDERS, animals=_Animals):
            return source.create_records(
                str(folder),
                dataset="animals",
                columns=("photographer",),
                split_by="class_hash",
            )
