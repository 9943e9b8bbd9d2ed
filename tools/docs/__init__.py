"""Generators of the documentation's reference page and figures."""
