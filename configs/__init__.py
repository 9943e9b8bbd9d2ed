"""Configs, one file per experiment, with its command, expected metrics and time."""
