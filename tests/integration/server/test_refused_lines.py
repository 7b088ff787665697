"""Strangers that are refused again and again cannot fill a disk with log lines."""

import asyncio
from collections import Counter

import pytest
from structlog.testing import capture_logs

from bridge.telemetry import repeated_lines
from bridge.telemetry.repeated_lines import MAX_LINES, RepeatedLines
from tests.support.listener import running, say

TIMES = 3 * MAX_LINES
JOB = "a1" * 16
UPLOAD = f"/v1/report/junit/report/upload?job_id={JOB}&build_no=1"
TOKENS = """\
[callers]
auth = ["token"]
[[callers.tokens]]
name = "ci"
token = "canary-token"
routes = ["shop"]
[[routes]]
name = "shop"
project_token = "t-123456"
"""


def request(line, *headers):
    return "\r\n".join([f"{line} HTTP/1.1", "Host: bridge", "Connection: close", *headers, "", ""]).encode()


WRONG, RIGHT = "X-Auth-Token: wrong", "X-Auth-Token: canary-token"
REFUSED = {
    "request_malformed": b"GET / HTTP/1.1\r\nHost: a\r\nBroken\r\n\r\n",
    "upload_rejected": request(f"POST {UPLOAD}", WRONG, "Content-Length: 0"),
    "request_proxied": request("GET /v1/job/1/1/build-info", WRONG),
}


@pytest.fixture
def fresh(monkeypatch):
    """Begin a window of its own, whatever other tests have logged."""
    monkeypatch.setattr(repeated_lines, "_repeated", RepeatedLines())


@pytest.mark.usefixtures("fresh")
async def test_refused_strangers_write_few_lines_and_verified_callers_all_of_theirs(tmp_path):
    with capture_logs() as lines:
        async with running(tmp_path, TOKENS) as gateway:
            for refused in REFUSED.values():
                answers = await asyncio.gather(*(say(gateway.server_url, refused) for _ in range(TIMES)))
                assert {answer.status for answer in answers} <= {400, 401}
            rejected = request(f"POST {UPLOAD}&node_id=%20", RIGHT, "Content-Length: 0")
            answers = await asyncio.gather(*(say(gateway.server_url, rejected) for _ in range(TIMES)))
            assert {answer.status for answer in answers} == {400}
    written = Counter((line["event"], line.get("code")) for line in lines if line["event"] in REFUSED)
    assert written == {
        ("request_malformed", None): MAX_LINES,
        ("upload_rejected", "APIGW.0301"): MAX_LINES,
        ("request_proxied", "APIGW.0301"): MAX_LINES,
        ("upload_rejected", "CB.00060200"): TIMES,
    }
