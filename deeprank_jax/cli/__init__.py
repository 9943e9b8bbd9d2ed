"""The command line `deeprank`, one file per command."""
