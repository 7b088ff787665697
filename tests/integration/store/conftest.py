"""Every spool and archive, for the contract suites; the ledgers stand one folder up."""

import pytest

from bridge.clock import SystemClock
from bridge.store.archive.disk import DiskArchive
from bridge.store.archive.s3 import S3Archive
from bridge.store.blobs.disk import DiskSpool
from bridge.store.blobs.s3 import S3Spool
from bridge.store.blobs.temp_file import TempFolder
from tests.support.backends import open_bucket


@pytest.fixture(params=["disk", "s3"])
def s3(request):
    """The real S3 server, None where what is tested lies on disk."""
    return request.getfixturevalue("weed") if request.param == "s3" else None


@pytest.fixture
async def spool(s3, tmp_path):
    """Whatever keeps blobs: empty."""
    folder = tmp_path / "spool"
    folder.mkdir()
    if s3 is None:
        yield DiskSpool(folder)
        return
    scratch = TempFolder(folder)
    async with open_bucket(s3) as bucket:
        yield S3Spool(bucket, scratch, SystemClock())
    scratch.close()


@pytest.fixture
async def archive(s3, tmp_path):
    """Whatever keeps copies: empty."""
    if s3 is None:
        folder = tmp_path / "archive"
        folder.mkdir()
        yield DiskArchive(folder, min_free=1)
        return
    async with open_bucket(s3) as bucket:
        yield S3Archive(bucket)
