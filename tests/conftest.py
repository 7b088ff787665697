"""What holds for every test."""

import pytest

from tests.weed import Weed

READABLE = 24  # longer bytes say nothing as a test's name


def pytest_make_parametrize_id(val):
    """Name packed bytes by their size: their content may hold the time, and workers must agree on names."""
    if isinstance(val, bytes) and len(val) > READABLE:
        return f"{len(val)}B"
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with the tests that wait for minutes, in whatever order the others come."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


@pytest.fixture(scope="session")
def weed():
    """A real S3 server for all tests of this worker; each takes a prefix of its own."""
    with Weed() as weed:
        yield weed
