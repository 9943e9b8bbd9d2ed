"""Exported models: embedding, comparing, searching and grouping images."""
