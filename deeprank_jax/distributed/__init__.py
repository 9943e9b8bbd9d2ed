"""Devices, processes and their coordination."""
