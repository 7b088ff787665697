"""Every spool and archive, for the contract suites; the ledgers stand one folder up."""

import pytest

from bridge.store.spool import DiskSpool


@pytest.fixture(params=["disk"])
def spool(tmp_path):
    """Whatever keeps blobs: empty."""
    folder = tmp_path / "spool"
    folder.mkdir()
    return DiskSpool(folder)
