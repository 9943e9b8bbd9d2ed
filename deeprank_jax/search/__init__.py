"""Search and grouping of embeddings; it knows vectors, no models and no images."""
