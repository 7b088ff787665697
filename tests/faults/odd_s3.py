"""An HTTP proxy before S3 that answers reads of objects oddly; the rest passes as it came, signatures included."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

PAGE = "<html><title>Log in</title></html>"


def error(code: str, status: int) -> web.Response:
    """Return an error as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>It is so.</Message></Error>"
    return web.Response(status=status, text=body, content_type="application/xml")


def page(status: int) -> web.Response:
    """Return a page for people, as a load balancer or a login has it."""
    return web.Response(status=status, text=PAGE, content_type="text/html")


def spoilt(answer: web.Response, *, body: bytes | None = None, content_range: str | None = None) -> web.Response:
    """Return a good answer with another body or another Content-Range."""
    if body is not None:
        answer.body = body
    if content_range is not None:
        answer.headers["Content-Range"] = content_range
    return answer


def flipped(body: bytes) -> bytes:
    """Return `body` with one bit changed."""
    return bytes([body[0] ^ 1]) + body[1:]


Odd = Callable[[web.Response], web.Response]
"""Makes of a good answer another one."""

KINDS: dict[str, Odd] = {
    "404 NoSuchBucket": lambda _: error("NoSuchBucket", 404),
    "404 NoSuchKey": lambda _: error("NoSuchKey", 404),
    "404 page": lambda _: page(404),
    "403": lambda _: error("AccessDenied", 403),
    "200 page": lambda _: page(200),
    "200 empty": lambda _: web.Response(status=200),
    "302": lambda _: web.Response(status=302, headers={"Location": "http://login.test/"}),
    "301 S3": lambda _: error("PermanentRedirect", 301),
    "416": lambda _: error("InvalidRange", 416),
    "503": lambda _: error("SlowDown", 503),
    "206 short": lambda good: spoilt(good, body=good.body[:-1]),  # type: ignore[index, arg-type]
    "206 long": lambda good: spoilt(good, body=good.body + b"x"),  # type: ignore[operator, arg-type]
    "206 empty": lambda good: spoilt(good, body=b""),
    "206 of less": lambda good: spoilt(good, body=good.body[:10], content_range="bytes 0-9/10"),  # type: ignore[index, arg-type]
    "206 elsewhere": lambda good: spoilt(good, content_range="bytes 1-300000/300001"),
    "206 flipped": lambda good: spoilt(good, body=flipped(good.body)),  # type: ignore[arg-type]
}


class OddS3:
    """Stands before S3 from `async with` to its end; `odd` returns what spoils the answer to the read of a key."""

    def __init__(self, upstream_url: str) -> None:
        self._upstream = URL(upstream_url)
        self.odd: Callable[[str], Odd | None] = lambda _key: None
        self.url = ""
        self.reads: dict[str, int] = {}
        self.hangs = False  # reads get no answer
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{key:.*}", self._serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        await self._runner.cleanup()
        await self._http.close()

    async def _serve(self, request: web.Request) -> web.Response:
        good = await self._pass_on(request)
        if request.method != "GET" or "list-type" in request.query:
            return good
        key = request.path.lstrip("/")
        self.reads[key] = self.reads.get(key, 0) + 1
        if self.hangs:
            await self._ended.wait()
        odd = self.odd(key)
        return good if odd is None else odd(good)

    async def _pass_on(self, request: web.Request) -> web.Response:
        target = URL(f"{self._upstream}".rstrip("/") + request.raw_path, encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        body = await request.read()
        async with self._http.request(request.method, target, headers=headers, data=body or b"") as answer:
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() in ("content-range", "etag", "content-type") or name.lower().startswith("x-amz-meta")
            }
            return web.Response(status=answer.status, headers=kept, body=await answer.read())
