"""Rows of the paper's table that are no network: what a learned embedding must beat."""
