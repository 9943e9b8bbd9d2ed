"""TFDS builders of datasets that TFDS does not know."""
