"""Hand-made image descriptors, in NumPy: what a learned embedding must beat."""
