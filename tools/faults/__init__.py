"""Fault campaign: `python -m tools.faults` damages, stops and starves the project."""
