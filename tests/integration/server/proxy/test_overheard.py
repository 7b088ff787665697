"""What passes by is used, and the caller never notices."""

import gzip
import json

import pytest

from bridge.domain.build import BuildState
from tests.integration.server.proxy.conftest import JOB
from tests.support.ledger import report
from tests.support.proxy_upstream import get

BUILD_INFO = f"/v1/job/{JOB}/1/build-info"
RECORD_INFO = f"/v1/record/{JOB}/1/record-info"
ENDED = {"result": {"building": False, "build_result": "SUCCESS"}, "error": None, "status": "success"}
RECORD = {"result": {"branch": "main", "commit": "c0ffee00"}, "status": "success"}


@pytest.fixture
async def waiting(ledger, clock):
    """A build whose next turn is a minute away."""
    await ledger.accept(report())
    await ledger.release(await ledger.claimed(), clock.now() + 60_000_000)
    clock.advance(1)


def answering(body, *headers, status="200 OK"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize(
    "answer",
    [
        answering(ENDED),
        answering({**ENDED, "result": [ENDED["result"]]}),
        answering(gzip.compress(json.dumps(ENDED).encode()), "Content-Encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        % (len(json.dumps(ENDED)), json.dumps(ENDED).encode()),
    ],
)
async def test_that_a_build_has_ended_makes_the_bridge_look_at_it(proxied, build, ledger, clock, answer):
    build.answer = answer

    await proxied.ask(get(f"{BUILD_INFO}?x=1"))

    looked_at = (await ledger.claimed()).build
    assert (looked_at.poll_requested_at, looked_at.state) == (clock.now(), BuildState.OPEN)


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("path", [RECORD_INFO, f"/v4/jobs/{JOB}/1/record-info"])
async def test_a_record_fills_what_the_bridge_does_not_know(proxied, build, ledger, path):
    build.answer = answering(RECORD)

    await proxied.ask(get(path))

    record = (await ledger.claimed()).build.record
    assert record is not None
    assert (record.branch, record.commit) == ("main", "c0ffee00")


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (get(BUILD_INFO), answering({**ENDED, "result": {"building": True}})),
        (get(BUILD_INFO), answering(ENDED, status="500 Oh")),
        (get(BUILD_INFO), answering(ENDED, status="206 Partial Content")),
        (get(BUILD_INFO), answering({"error_code": "DEVCB.00031006", "error_msg": "gone"})),
        (get(BUILD_INFO), answering(b"not JSON")),
        (get(BUILD_INFO), answering(b"\x1f\x8b not gzip", "Content-Encoding: gzip")),
        (get(BUILD_INFO), answering(ENDED, "Content-Encoding: rot13")),
        (get(BUILD_INFO), answering({**ENDED, "padding": "x" * 65_536})),
        (get(BUILD_INFO), answering(gzip.compress(bytes(1 << 20)), "Content-Encoding: gzip")),
        (get(BUILD_INFO, method="DELETE"), answering(ENDED)),
        (get(f"/v1/job/{JOB}/2/build-info"), answering(ENDED)),
        (get(f"/v1/job/{JOB}/99999999999/build-info"), answering(ENDED)),
        (get(f"/v1/job/{JOB}/1/build-infos"), answering(ENDED)),
        (get(f"/v2/job/{JOB}/1/build-info"), answering(ENDED)),
        (get(RECORD_INFO), answering({"result": None, "status": "success"})),
    ],
)
async def test_everything_else_passes_by_unused_and_whole(proxied, build, ledger, request_, answer):
    build.answer = answer

    came = await proxied.ask(request_)

    assert came.partition(b"\r\n\r\n")[2] == answer.partition(b"\r\n\r\n")[2]
    assert await ledger.claim() is None
