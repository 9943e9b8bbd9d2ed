"""Reports without their charts and map, half of a small run's time."""

import pytest

from tools.faults.forked import plain_reports


@pytest.fixture(scope="module")
def without_pictures():
    """Leaves them out where other tests than those of the report train."""
    with plain_reports():
        yield
