"""Unwelcome clients: uploads that must be rejected, and connections that send a byte now and then."""

import asyncio
import gzip
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.chaos.plan import HOSTILE_JOB, Pest, Slow
from tests.chaos.stage import MAX_FILES, Stage
from tests.support.builds import UPLOAD_PATH
from tests.support.canaries import ADMIN, CALLER

JOB = HOSTILE_JOB
"""The job that all of them upload to; where it has a build, something was taken."""

STRANGER = "canary-stranger-token-c4d8"
ANSWER_SECONDS = 30.0
DRIP_SECONDS = 0.25
DRIPS = 40
BOMB_BYTES = 12 * 1024 * 1024  # more than the stage's MAX_REQUEST once it is unfolded
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def _files(*bodies: bytes, name: str = "TEST-x.xml") -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)
    for body in bodies:
        form.add_field("files", body, filename=name, content_type="text/xml")
    return form


def _multipart(content: bytes, *, end: bytes = b"--x--\r\n") -> dict[str, Any]:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="TEST-x.xml"\r\n\r\n'
    return {"data": head + content + b"\r\n" + end, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}


def _packed(content: bytes, encoding: str) -> dict[str, Any]:
    whole = _multipart(content)
    data = gzip.compress(whole["data"])
    return {"data": data, "headers": {**whole["headers"], "Content-Encoding": encoding}}


GOOD = b'<testsuite name="hostile"><testcase name="a"/></testsuite>'
HOSTILE: Mapping[str, Callable[[], dict[str, Any]]] = {
    "no report": lambda: {"data": _files(b"<html><body>404</body></html>")},
    "no XML": lambda: {"data": _files(b"\x00\xff\xfe not XML at all")},
    "cut off": lambda: {"data": _files(GOOD[:-9])},
    "entities": lambda: {"data": _files(f"{ENTITIES}]><testsuite><testcase name='&i;'/></testsuite>".encode())},
    "external entity": lambda: {
        "data": _files(b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><testsuite name="&a;"></testsuite>')
    },
    "deep": lambda: {"data": _files(b"<testsuite>" * 20_000)},
    "climbing name": lambda: {"data": _files(b"<html/>", name="../../../etc/cron.d/x")},
    "bomb": lambda: _packed(b"<testsuite>" + b" " * BOMB_BYTES + b"</testsuite>", "gzip"),
    "unknown encoding": lambda: _packed(GOOD, "rot13"),
    "no end": lambda: _multipart(GOOD, end=b""),
    "no form": lambda: {"data": b"\x00" * 1000, "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    "too many files": lambda: {"data": _files(*[GOOD] * (MAX_FILES + 1))},
    "stranger": lambda: {"data": _files(GOOD), "headers": {"X-Auth-Token": STRANGER}},
    "unexpanded": lambda: {"data": _files(GOOD), "params": {"job_id": "${JOB_ID}", "build_no": "1"}},
}


OF_A_BUILD = frozenset({"no report", "no XML", "cut off", "entities", "external entity", "deep", "climbing name"})
"""Those whose rejection is recorded with its file, once for each file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """One upload of the honest caller that was answered 400, and when (microseconds UTC)."""

    what: str
    request_id: str
    at: int


@dataclass(slots=True)
class Pests:
    """All unwelcome callers of a run; `taken` are those that were told "success"."""

    stage: Stage
    counts: Counter[str] = field(default_factory=Counter)
    taken: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # answers, headers included
    slow: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)  # what the ledger is to show

    async def come(self, pest: Pest) -> None:
        """Let one of them come, and return when it has had its answer or was cut off."""
        with suppress(OSError, TimeoutError, aiohttp.ClientError):  # the gateway that they connected to may have died
            await (self._send(pest) if pest.slow is None else self._drip(pest, pest.slow))

    async def _send(self, pest: Pest) -> None:
        what = list(HOSTILE)[pest.number % len(HOSTILE)]
        self.counts["hostile uploads"] += 1
        request = {"params": {"job_id": JOB, "build_no": "1"}, **HOSTILE[what]()}
        request["headers"] = {"X-Auth-Token": CALLER, **request.get("headers", {})}
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.post(self.stage.server_url() + UPLOAD_PATH, **request) as answer,
        ):
            self.said.append(f"{answer.status} {dict(answer.headers)} {await answer.text()}")
            self.counts[f"answered {answer.status}"] += 1
            if answer.status == 400 and what in OF_A_BUILD:
                request_id = answer.headers["X-Request-Id"]
                self.rejected.append(Rejected(what=what, request_id=request_id, at=self.stage.now()))
            if answer.status < 400:
                self.taken.append(what)

    async def _drip(self, pest: Pest, slow: Slow) -> None:
        part = "body" if pest.in_body else "header"
        self.slow[f"{'stalls' if pest.stalls else 'drips'} in the {part} of {slow}"] += 1
        where = urlsplit(self._url_of(slow))
        head = f"POST {SLOW_PATHS[slow]} HTTP/1.1\r\nHost: {where.netloc}\r\n{_proof(slow)}"
        if pest.in_body:
            head += "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        try:
            writer.write(head.encode())
            for number in range(DRIPS):
                if number == 0 or not pest.stalls:
                    writer.write(b"x")
                    await writer.drain()
                await asyncio.sleep(DRIP_SECONDS)
            self.said.append((await asyncio.wait_for(reader.read(1000), DRIP_SECONDS)).decode("latin1"))
        finally:
            writer.close()

    def _url_of(self, slow: Slow) -> str:
        if slow is Slow.ADMIN:
            return self.stage.chance.choice(self.stage.gateways).admin_url
        return self.stage.server_url()


SLOW_PATHS: Mapping[Slow, str] = {
    Slow.UPLOAD: f"{UPLOAD_PATH}?job_id={JOB}&build_no=1",
    Slow.PROXY: f"/v1/job/{JOB}/1/build-info",
    Slow.LOGIN: "/v3/auth/tokens",
    Slow.ADMIN: "/api/v1/rejections/1/send",
}


def _proof(slow: Slow) -> str:
    """Return the header of a caller; a login has none."""
    token = {Slow.LOGIN: None, Slow.ADMIN: ADMIN}.get(slow, CALLER)
    return "" if token is None else f"X-Auth-Token: {token}\r\n"
