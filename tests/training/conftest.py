"""Runs here leave out the charts and the map of the report, half of a small run's time.

The tests of the report draw them, and those of the command line.
"""

import pytest

from tools.faults.forked import plain_reports


@pytest.fixture(autouse=True, scope="module")
def without_pictures():
    with plain_reports():
        yield
