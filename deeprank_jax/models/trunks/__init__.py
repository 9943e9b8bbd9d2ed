"""Convolutional trunks, one file per architecture."""
