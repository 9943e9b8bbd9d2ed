"""Small sets of own images, and records without any."""

import hashlib

import ml_collections
import numpy as np
from PIL import Image

from deeprank_jax import data
from deeprank_jax.data import records as records_lib


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_classes(root, num_classes, num_images, parent=lambda i: ""):
    for i in range(num_classes):
        for j in range(num_images):
            write_image(root / parent(i) / f"class {i}" / f"{j}.png", seed=i * 100 + j)


def create(name, directory):
    return data.create_records(
        ml_collections.ConfigDict({"source": {"name": name}, "dir": str(directory)})
    )


def create_pool(class_names, num_images, fill=""):
    """Returns records without images, `num_images` for each class."""
    labels_of = np.repeat(np.arange(len(class_names)), num_images)
    return records_lib.Records(
        name="pool",
        labels=labels_of[:, None].astype(np.int32),
        level_names=("level_1",),
        label_names=(tuple(class_names),),
        read=lambda index: b"",
        describe=lambda index: f"{class_names[labels_of[index]]}/{fill}{index}.png",
    )


def num_anchor_classes(records):
    """Returns how many classes have two images."""
    return int(np.sum(np.bincount(records.labels[:, -1]) >= 2))


def paths_of(records):
    return [records.describe(i) for i in range(len(records))]


def byte(name):
    return hashlib.sha256(name.encode()).digest()[0]
