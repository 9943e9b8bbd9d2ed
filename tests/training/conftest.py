"""Runs here leave out the pictures of the report, which tests of the report draw."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def plain(without_pictures):
    """Is set up before the fixtures that train."""
