"""Keys of copies in the archive: nothing that a caller sent can leave its folder."""

import pytest

from bridge.store.archive.base import ArchiveEntry

VALUES = {"node_id": "default", "name": "u.xml", "size": 1, "received_sha256": "a" * 64, "sent_size": 1}
COUNTS = {"tests": 1, "failures": 0, "errors": 0, "skipped": 0, "flaky": 0}


@pytest.mark.parametrize(
    ("job_id", "build_no", "folder"),
    [
        ("a" * 32, 7, f"{'a' * 32}/7"),
        ("shop", "ci-7", "testnod-shop/ci-7"),
        ("../..", "ci-7", "testnod-..%2F../ci-7"),
        ("..", "7", "testnod-../7"),
    ],
)
def test_a_copy_lies_below_its_day_its_job_or_route_and_its_build(job_id, build_no, folder):
    entry = ArchiveEntry(
        report_id=1, job_id=job_id, build_no=build_no, delivered_at=0, sent_sha256="b" * 64, **VALUES, **COUNTS
    )
    assert entry.key == f"1970/01/01/{folder}/1-{'b' * 16}.xml"
    assert all(value.isascii() for value in entry.metadata().values())
