"""The hook over a real socket: who is heard, and what is then looked at."""

import json

import pytest

from bridge.server.webhook import MAX_NOTICE_BYTES
from tests.integration.server.running import running, say
from tests.ports import REFUSED_URL

JOB = "a" * 32
SECRET = "s3cret-of-the-hook"
SETTINGS = f"""
[callers]
auth = "open"
[codearts]
endpoint = "{REFUSED_URL}"
[[routes]]
name = "shop"
project_token = "t"
[webhook]
secret = ["old-one", "{SECRET}"]
"""


def post(query="", *, headers=(f"X-Bridge-Hook: {SECRET}",), body=b"", method="POST"):
    lines = [f"{method} /hooks/codearts{query} HTTP/1.1", "Host: b", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@pytest.fixture
async def gateway(tmp_path):
    async with running(tmp_path, SETTINGS) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((f"X-Bridge-Hook: {SECRET}",), 202),
        (("X-Bridge-Hook: old-one",), 202),
        ((f"Authorization: Bearer {SECRET}",), 202),
        ((f"Authorization: bearer {SECRET}",), 202),
        ((), 401),
        (("X-Bridge-Hook:",), 401),
        (("X-Bridge-Hook: s3cret-of-the-hoo",), 401),
        ((f"X-Auth-Token: {SECRET}",), 401),
        ((f"Authorization: Basic {SECRET}",), 401),
    ],
)
async def test_only_who_knows_a_secret_is_heard(gateway, headers, status):
    answer = await say(gateway.server_url, post(f"?job_id={JOB}&build_no=1", headers=headers))

    assert answer.status == status
    assert SECRET.encode() not in answer.body


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", json.dumps({"job_id": "b" * 32}).encode()])
async def test_notices_of_nothing_known_are_taken_and_forgotten(gateway, body):
    answer = await say(gateway.server_url, post(body=body))

    assert answer.status == 202
    assert answer.json["result"].endswith(("so no build is polled.", "so none is polled."))


async def test_a_notice_without_end_is_cut(gateway):
    answer = await say(gateway.server_url, post(body=b" " * (MAX_NOTICE_BYTES + 1)))

    assert answer.status == 413
    assert answer.json["error_code"] == "BRIDGE.TOO_LARGE"


async def test_there_is_nothing_to_get_from_a_hook(gateway):
    assert (await say(gateway.server_url, post(method="GET"))).status == 405


async def test_without_a_secret_there_is_no_hook(tmp_path):
    async with running(tmp_path, SETTINGS.partition("[webhook]")[0]) as gateway:
        for request in (post(), post(headers=()), post(method="GET")):
            answer = await say(gateway.server_url, request)
            assert (answer.status, answer.json["error_code"]) == (404, "BRIDGE.NOT_FOUND")
