"""Pretrained weights: file formats, layouts and their import into a trunk."""
