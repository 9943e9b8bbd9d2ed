"""Command-line programs for developers of a model."""
