"""Views of three small photographs, prepared once for the tests that use them."""

import pytest

from deeprank_jax.data.sources import photo_views_builder, tfds_dataset

FEW = {
    "train": {"coins": ("skimage", "data/coins.png")},
    "validation": {"moon": ("skimage", "data/moon.png")},
    "test": {"cat": ("skimage", "data/chelsea.png")},
}


@pytest.fixture(scope="session")
def few_photos(tmp_path_factory):
    """Returns the directory of the dataset `photo_views` with these alone."""
    directory = tmp_path_factory.mktemp("photo_views")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_views_builder, "_PHOTOS", FEW)
        tfds_dataset.prepare("photo_views", str(directory))
    return directory
