"""Images of the first handwritten digits, prepared once for the tests that use them."""

import pytest

from deeprank_jax.data.sources import digits_builder, tfds_dataset

NUM_ORIGINALS = 200


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory):
    """Returns the directory of the dataset `digits` with these alone."""
    directory = tmp_path_factory.mktemp("digits")
    originals, digits = digits_builder.read_originals()
    few = originals[:NUM_ORIGINALS], digits[:NUM_ORIGINALS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_builder, "read_originals", lambda: few)
        tfds_dataset.prepare("digits", str(directory))
    return directory
