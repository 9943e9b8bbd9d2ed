"""Exported models: embedding and comparing images, one at a time or in bulk."""
