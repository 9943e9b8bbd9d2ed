"""A tenth of the demo's emoji, prepared once for the tests that train on them."""

import pytest

from deeprank_jax.data.sources import emoji_builder, tfds_dataset


@pytest.fixture(scope="session")
def few_emoji(tmp_path_factory):
    """Returns the directory of one emoji in ten, read from the installed packages."""
    read = emoji_builder._read_emoji
    tenth = lambda: dict(list(read().items())[::10])
    directory = tmp_path_factory.mktemp("emoji")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji_builder, "_read_emoji", tenth)
        tfds_dataset.prepare("emoji", str(directory))
    return directory
