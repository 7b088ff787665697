"""Refusals in the admin API over real sockets: looked at, downloaded, and sent after all into a real ledger."""

import hashlib

import pytest
from aiohttp import ClientPayloadError, web
from sqlalchemy import select

from bridge.domain.build import BoundMetadata, UploadMetadata
from bridge.domain.routing import Route
from bridge.errors import Unavailable
from bridge.server.admin.rejections import RejectionsApi
from bridge.server.http.responses import handle_errors
from bridge.store.blobs.disk import DiskSpool
from bridge.store.schema import rejections, reports
from tests.support.labels import label
from tests.support.ledger import kept_refusal, refusal, report
from tests.support.upload_server import (
    GOOD,
    JOB,
    NOT_JUNIT,
    NOT_XML,
    OTHER_JOB,
    REPAIR_JOB,
    STRIP_JOB,
    large,
    new_resender,
)
from tests.unit.server.compression.test_archives import zip_of

CUT = b"<testsuite><testcase name='a'/><testcase name='b"
LARGE = b"<testsuite><testcase name='a'/>" + b"<!-- -->" * 30_000 + b"<testcase"
COUNTED = "1 report, 2 tests, 1 failed"


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    return DiskSpool(folder)


@pytest.fixture
def serve(aiohttp_client, database, spool, checker):
    async def start(**other):
        app = web.Application(middlewares=[handle_errors])
        resender = new_resender(database, spool, checker, **other)
        RejectionsApi(database=database, resender=lambda: resender).add_routes(app)
        return await aiohttp_client(app)

    return start


@pytest.fixture
def refuse(ledger, spool):
    """Have a file refused: small ones in the row, others in the spool."""

    async def enter(
        content, name="bad.xml", *, job_id=JOB, in_spool=False, upload_metadata=None, caller_routes=None, **other
    ):
        if in_spool:
            writer = await spool.create()
            await writer.write(content)
            other |= {"body": None, "blob": await writer.commit(label(content))}
        told = kept_refusal(name, content, **other)
        await ledger.enter(
            job_id=job_id,
            rejections=(told,),
            caller="shop",
            caller_routes=caller_routes,
            upload_metadata=upload_metadata or UploadMetadata(),
            request_id="r-9",
        )
        return told.quarantined

    return enter


async def send(client, number=1, **body):
    answer = await client.post(f"/api/v1/rejections/{number}/send", json=body)
    return answer.status, await answer.json()


async def rows(ledger, table):
    return await ledger.rows(select(table).order_by(table.c.id))


def damage(path):
    path.write_bytes(b"X" + path.read_bytes()[1:])


def files(spool):
    return sorted(str(path.relative_to(spool._root)) for path in spool._root.rglob("*") if path.is_file())


# -- looking -------------------------------------------------------------------------------------------------------


async def test_rejections_are_listed_with_what_it_takes_to_send_them(serve, ledger, refuse):
    await refuse(NOT_XML, node_id="n1")
    await ledger.enter(job_id=JOB, rejections=(refusal("lost.xml"),))
    client = await serve()
    page = await (await client.get("/api/v1/rejections", params={"limit": "1"})).json()
    assert [(told["id"], told["size"], told["kept_until"], told["node_id"]) for told in page["rejections"]] == [
        (2, None, None, None)
    ]
    page = await (await client.get("/api/v1/rejections", params={"after": page["next"]})).json()
    assert (page["next"], len(page["rejections"])) == (None, 1)
    assert page["rejections"][0] == {
        "at": "2023-11-14T22:13:20.000000Z",
        "name": "bad.xml",
        "reason": "'bad.xml' is no JUnit report. Look at what wrote it.",
        "code": "BRIDGE.REPORT",
        "caller": "shop",
        "request_id": "r-9",
        "id": 1,
        "size": len(NOT_XML),
        "sha256": hashlib.sha256(NOT_XML).hexdigest(),
        "kept_until": "2023-11-21T22:13:20.000000Z",
        "sent_at": None,
        "job_id": JOB,
        "build_no": 1,
        "route": "shop",
        "node_id": "n1",
    }
    assert (await client.get("/api/v1/rejections", params={"state": "x"})).status == 400


@pytest.mark.parametrize("in_spool", [False, True])
@pytest.mark.parametrize("content", [b"", NOT_JUNIT, LARGE * 4], ids=["empty", "small", "large"])
async def test_a_rejected_file_is_downloaded_as_data_and_as_nothing_else(serve, refuse, content, in_spool):
    await refuse(content, "../<b>\u202e.xml", in_spool=in_spool)
    answer = await (await serve()).get("/api/v1/rejections/1/file")
    assert (answer.status, await answer.read()) == (200, content)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"rejected-1-u202e.xml\"; filename*=UTF-8''rejected-1-u202e.xml"
    )


@pytest.mark.parametrize("number", ["2", "3", "x", "-1", "٣", str(2**53), "9" * 30])
@pytest.mark.parametrize("path", ["file", "send"])
async def test_what_is_not_there_is_404(serve, ledger, number, path):
    await ledger.enter(rejections=(kept_refusal(), refusal("whole-upload.xml")))
    client = await serve()
    url = f"/api/v1/rejections/{number}/{path}"
    answer = await (client.get(url) if path == "file" else client.post(url, json={}))
    assert (answer.status, (await answer.json())["error_code"]) == (404, "BRIDGE.NOT_FOUND")


async def test_bytes_that_are_gone_or_damaged_are_said_to_be(serve, ledger, refuse, spool):
    missing = await refuse(NOT_XML, "missing.xml", in_spool=True)
    damaged = await refuse(GOOD, "damaged.xml", in_spool=True)
    await ledger.enter(job_id=JOB, rejections=(kept_refusal("no-room.xml", body=None),))
    spool._path(missing.blob).unlink()
    damage(spool._path(damaged.blob))
    client = await serve()
    for number, word in ((1, "gone"), (2, "damaged"), (3, "no longer")):
        status, answer = await send(client, number)
        assert (status, word in answer["error_msg"]) == (404, True)
    assert [(await client.get(f"/api/v1/rejections/{number}/file")).status for number in (1, 2, 3)] == [404] * 3
    assert await rows(ledger, reports) == []


async def test_a_download_of_damaged_bytes_breaks_off_instead_of_ending(serve, refuse, spool):
    damaged = await refuse(LARGE * 4, in_spool=True)
    damage(spool._path(damaged.blob))
    answer = await (await serve()).get("/api/v1/rejections/1/file")
    with pytest.raises(ClientPayloadError):
        await answer.read()


# -- sending -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_spool", [False, True])
async def test_a_file_whose_cause_is_fixed_is_sent_unchanged_with_the_metadata_of_its_upload(
    serve, ledger, refuse, spool, in_spool
):
    said = UploadMetadata(branch="main", commit="c0ffee")
    whole = {"in_spool": in_spool, "node_id": "n7", "route": ""}
    await refuse(GOOD, "a\udcff.xml", job_id=OTHER_JOB, upload_metadata=said, caller_routes=("new",), **whole)
    client = await serve(routes=[Route(name="new", job_id=(OTHER_JOB,))])
    status, answer = await send(client)
    assert (status, answer) == (200, {"status": "success", "result": f"{COUNTED}; failed: b", "error": None})
    [row] = await rows(ledger, reports)
    assert (row.name, row.node_id, row.caller, row.caller_routes) == ("a\\udcff.xml", "n7", "shop", ["new"])
    assert (row.received_sha256, row.body) == (hashlib.sha256(GOOD).hexdigest(), GOOD)
    build = await ledger.build()
    of_callers = (BoundMetadata(routes=("new",), stated=said),)
    assert (build.job_id, build.bound_metadata, build.complete_at) == (OTHER_JOB, of_callers, None)
    [refused] = await rows(ledger, rejections)
    assert (refused.body, refused.blob, refused.kept_until, files(spool)) == (None, None, None, [])


async def test_a_second_time_is_success_once(serve, ledger, refuse):
    await refuse(GOOD)
    client = await serve()
    answers = [await send(client) for _ in range(2)]
    assert [status for status, _ in answers] == [200, 200]
    assert answers[1][1]["result"] == "It was already sent at 2023-11-14T22:13:20.000000Z"
    assert len(await rows(ledger, reports)) == 1


@pytest.mark.parametrize("content", [CUT, LARGE], ids=["small", "large"])
async def test_repair_is_done_when_it_is_asked_for_though_the_route_does_not(serve, ledger, refuse, spool, content):
    kept = await refuse(content, in_spool=content is LARGE)
    client = await serve()
    status, answer = await send(client)
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert answer["error_msg"].startswith("bad.xml: the file ends too early: ")
    assert (await rows(ledger, reports), files(spool)) == ([], [kept.blob] if kept.blob else [])

    status, answer = await send(client, repair=True)
    assert status == 200
    assert "cases may be missing. Finished cases kept: 1" in answer["result"]
    [row] = await rows(ledger, reports)
    assert row.received_sha256 == kept.sha256 != row.sent_sha256
    assert files(spool) == ([row.blob] if row.blob else [])


async def test_what_the_route_asks_for_today_is_done(serve, ledger, refuse):
    await refuse(CUT, job_id=REPAIR_JOB)
    await refuse(b"<testsuite><properties/><testcase name='a'/></testsuite>", "b.xml", job_id=STRIP_JOB)
    client = await serve()
    assert [(await send(client, number))[0] for number in (1, 2)] == [200, 200]
    assert [len(row.notes) for row in await rows(ledger, reports)] == [1, 1]


async def test_a_file_that_came_compressed_is_the_report_that_the_same_upload_would_bring(serve, ledger, refuse):
    await refuse(GOOD, "a.xml", received_size=9, received_sha256="c" * 64)
    await send(await serve())
    receipts = await ledger.accept(report("a.xml", received_sha256="c" * 64), job_id=JOB)
    assert receipts == ("duplicate",)


async def test_an_archive_is_opened_and_what_is_broken_inside_is_a_rejection_of_its_own(serve, ledger, refuse, spool):
    await refuse(zip_of(("good.xml", GOOD), ("bad.xml", NOT_XML)), "a.zip", in_spool=True)
    status, answer = await send(await serve())
    assert (status, answer["result"].startswith(f"{COUNTED}; 1 rejected: a.zip!bad.xml: ")) == (
        200,
        True,
    )
    assert [row.name for row in await rows(ledger, reports)] == ["a.zip!good.xml"]
    assert [(row.name, row.sent_at is None) for row in await rows(ledger, rejections)] == [
        ("a.zip", False),
        ("a.zip!bad.xml", True),
    ]
    assert files(spool) == []


@pytest.mark.parametrize(
    ("job_id", "caller_routes", "status", "code"),
    [(OTHER_JOB, None, 404, "BRIDGE.NO_ROUTE"), (JOB, ("lenient",), 403, "APIGW.0302")],
)
async def test_it_goes_only_where_its_caller_may_send(serve, ledger, refuse, job_id, caller_routes, status, code):
    await refuse(GOOD, job_id=job_id, caller_routes=caller_routes)
    answered, answer = await send(await serve())
    assert (answered, answer["error_code"]) == (status, code)
    assert (await rows(ledger, rejections))[0].body == GOOD


async def test_while_no_upload_can_be_taken_nothing_is_sent(serve, refuse):
    await refuse(GOOD)

    def admit():
        raise Unavailable("The bridge is stopping. Send it again in a while.")

    assert (await send(await serve(admit=admit)))[0] == 503


async def test_a_ledger_that_fails_leaves_what_there_was(serve, ledger, refuse, spool):
    kept = await refuse(large(200_000), in_spool=True)

    async def accept(_):
        raise Unavailable("The ledger cannot be written. Send it again in a while.")

    assert (await send(await serve(accept=accept)))[0] == 503
    assert (files(spool), (await rows(ledger, rejections))[0].sent_at) == ([kept.blob], None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"repair": true}', "text/plain"),
        (b'{"repair": true}', "application/x-www-form-urlencoded"),
        (b"[" * 900, "application/json"),
        (b"\xff", "application/json"),
        (b"[]", "application/json"),
        (b'{"repair": 1}', "application/json"),
        (b'{"fix": true}', "application/json"),
    ],
)
async def test_what_asks_for_something_else_or_comes_from_another_page_sends_nothing(serve, ledger, refuse, body, kind):
    await refuse(GOOD)
    client = await serve()
    answer = await client.post("/api/v1/rejections/1/send", data=body, headers={"Content-Type": kind})
    assert (answer.status, (await answer.json())["error_code"]) == (400, "CB.00060200")
    assert await rows(ledger, reports) == []


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/octet-stream", "application/json"])
async def test_without_a_body_any_content_type_sends_the_file(serve, ledger, refuse, kind):
    await refuse(GOOD)
    client = await serve()
    foreign = {"Content-Type": kind, "Origin": "https://evil.example"}
    assert (await client.post("/api/v1/rejections/1/send", data=b"", headers=foreign)).status == 400
    assert await rows(ledger, reports) == []
    answer = await client.post("/api/v1/rejections/1/send", data=b"", headers={"Content-Type": kind})
    assert (answer.status, len(await rows(ledger, reports))) == (200, 1)


async def test_a_question_that_does_not_end_is_cut(serve, refuse):
    await refuse(GOOD)
    answer = await (await serve()).post(
        "/api/v1/rejections/1/send", data=b" " * 5000, headers={"Content-Type": "application/json"}
    )
    assert answer.status == 413
