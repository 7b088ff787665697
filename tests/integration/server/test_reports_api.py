"""The file of a report: from the archive, under a harmless name, or why there is none."""

import pytest
from aiohttp import web

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.changes import set_delivery
from bridge.server.admin.reports import ReportsApi
from bridge.server.http.responses import handle_errors
from bridge.store.archive.base import copy_of
from bridge.store.archive.disk import DiskArchive
from tests.support.fake_clock import START, FakeClock
from tests.support.ledger import Ledger, report, upload

BOTH = (DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE)
CONTENT = b"<testsuite/>"


class LinkingArchive:
    """Hands out links, as the one in S3 does."""

    async def find_copy(self, key, *, disposition):
        return f"https://s3.test/{key}?X-Amz-Signature=canary&d={disposition}"


@pytest.fixture
async def ledger(backend):
    async with backend.fresh(FakeClock()) as database:
        yield Ledger(database)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "archive"
    root.mkdir()
    return root


@pytest.fixture
def get(aiohttp_client, ledger):
    async def ask(archive, report_id=1):
        app = web.Application(middlewares=[handle_errors])
        ReportsApi(database=ledger.database, archive=archive).add_routes(app)
        client = await aiohttp_client(app)
        return await client.get(f"/api/v1/reports/{report_id}/file", allow_redirects=False)

    return ask


async def accepted(ledger, **values):
    await ledger.accept_together(upload(report(**values), targets=BOTH))
    return await ledger.claimed()


async def deliver(ledger, visit, *targets, state=DeliveryState.DELIVERED, **values):
    for delivery in visit.build.deliveries.values():
        if delivery.target in targets:
            await ledger.record(visit.build, set_delivery(delivery, state=state, delivered_at=START, **values))


async def kept_copy(ledger, archive):
    async def source():
        yield CONTENT

    copy = await ledger.database.read(copy_of, 1)
    await archive.keep(copy.entry, source)
    return copy.entry


async def expect_404(answer):
    """Return the reason in an answer that must be 404."""
    assert answer.status == 404
    return (await answer.json())["error"]["message"]


async def test_a_copy_on_disk_is_served_to_be_saved_under_a_harmless_name(ledger, get, folder):
    archive = DiskArchive(folder, min_free=1)
    visit = await accepted(ledger, name='dir/报告"\r\n.xml')
    await deliver(ledger, visit, *BOTH)
    await kept_copy(ledger, archive)
    answer = await get(archive)
    assert (answer.status, await answer.read()) == (200, CONTENT)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    saved_as = "report-1-n.xml"  # the ledger shows a line's end as \\r\\n
    assert answer.headers["Content-Disposition"] == f"attachment; filename=\"{saved_as}\"; filename*=UTF-8''{saved_as}"


async def test_a_copy_in_s3_is_a_link_that_no_cache_keeps(ledger, get):
    visit = await accepted(ledger)
    await deliver(ledger, visit, *BOTH)
    answer = await get(LinkingArchive())
    entry = (await ledger.database.read(copy_of, 1)).entry
    assert answer.status == 302
    assert answer.headers["Location"].startswith(f"https://s3.test/{entry.key}?")
    assert answer.headers["Cache-Control"] == "no-store"
    assert await answer.read() == b""


async def test_a_copy_whose_time_is_over_is_gone(ledger, get, folder):
    visit = await accepted(ledger)
    await deliver(ledger, visit, *BOTH)
    assert "no longer in the archive" in await expect_404(await get(DiskArchive(folder, min_free=1)))


async def test_without_an_archive_it_says_what_to_set(ledger, get):
    await accepted(ledger)
    assert "Set it" in await expect_404(await get(None))


async def test_before_testnod_has_the_report_there_is_no_copy(ledger, get):
    await accepted(ledger)
    assert "not delivered yet" in await expect_404(await get(LinkingArchive()))


async def test_a_copy_that_fails_says_why(ledger, get):
    visit = await accepted(ledger)
    await deliver(ledger, visit, DeliveryTarget.TESTNOD)
    assert "in a moment" in await expect_404(await get(LinkingArchive()))
    await deliver(
        ledger, visit, DeliveryTarget.ARCHIVE, state=DeliveryState.DEAD, last_error="AccessDenied for a week."
    )
    assert "AccessDenied for a week." in await expect_404(await get(LinkingArchive()))


@pytest.mark.parametrize("report_id", ["2", "x", "-1", "٣", str(2**53), "9" * 40, "..%2f1"])
async def test_what_is_no_report_is_404(ledger, get, report_id):
    await accepted(ledger)
    assert "/api/v1/builds" in await expect_404(await get(LinkingArchive(), report_id))


async def test_a_report_that_came_before_the_archive_says_so(ledger, get):
    await ledger.accept(report())
    assert "No copy" in await expect_404(await get(LinkingArchive()))
