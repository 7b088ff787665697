"""Uploads to CodeArts' report API of files that turn out to be others, or cannot be read just now."""

import asyncio
import hashlib

import pytest

from bridge.client.account import Fixed
from bridge.client.codearts_reports import CodeArtsReports, ReportFile
from bridge.domain.outcomes import Damaged, SpoolUnreadable
from bridge.errors import DamagedBlob, Unavailable

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
REPORT = b"<testsuite/>"
PATIENCE_SECONDS = 45  # far less than a CodeArts that waits for the rest would be waited for


def file_of(*pieces, error=None):
    async def read():
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    return ReportFile(name="r.xml", size=len(REPORT), sha256=hashlib.sha256(REPORT).hexdigest(), read=read)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (file_of(error=Unavailable("S3 is away.")), SpoolUnreadable),
        (file_of(error=PermissionError("no")), SpoolUnreadable),
        (file_of(error=DamagedBlob("It is gone.")), Damaged),
        (file_of(REPORT[:-1]), Damaged),
    ],
    ids=["away", "unreadable", "gone", "different"],
)
async def test_only_a_damaged_report_is_given_up_and_none_is_taken_by_half(raw_server, new_session, file, kind):
    came_whole = asyncio.get_running_loop().create_future()

    async def serve(reader, _writer):
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        came_whole.set_result(body.endswith(b"--\r\n"))

    reports = CodeArtsReports(new_session("codearts"), f"http://127.0.0.1:{await raw_server(serve)}", Fixed())
    async with asyncio.timeout(PATIENCE_SECONDS):
        outcome = await reports.upload(JOB, 1, "1", [file])
        assert isinstance(outcome, kind)
        assert not await came_whole
