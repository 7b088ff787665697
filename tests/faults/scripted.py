"""An upstream that answers from a script, over bare bytes: what no honest HTTP server would do included.

The script is one entry a request; its last one is repeated without end.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.byte_server import ByteServer

ENDLESS_PIECE = b"x" * 65536
DRIP_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A whole answer, or the part of it that `fault` leaves."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    """`hang`: nothing; `stall`: headers and no body; `drip`: a byte now and then; `endless`: a body without end;
    `cut`: half a body; `reset`: closed without a byte; `garbage`: no HTTP."""


HANG = Answer(fault="hang")
EXPIRED = Answer(
    status=403,
    body=b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
)
Step = Answer | int


@dataclass(slots=True)
class ScriptedUpstream:
    """Answers from `async with` to its end; `seen` holds every request: its head and its body."""

    script: list[Step]
    url: str = ""
    seen: list[tuple[bytes, bytes]] = field(default_factory=list)
    _server: ByteServer = field(init=False)

    async def __aenter__(self) -> Self:
        self._server = ByteServer(self._serve)
        await self._server.start()
        self.url = self._server.url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._answer(reader, writer):
            pass

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False: the connection ends."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(_length(head))
        self.seen.append((head, body))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        answer = Answer(status=step) if isinstance(step, int) else step
        return await _play(answer, writer)


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)


async def _play(answer: Answer, writer: asyncio.StreamWriter) -> bool:
    match answer.fault:
        case "hang":
            await asyncio.Event().wait()
        case "reset":
            return False
        case "garbage":
            writer.write(b"\x00\xff this is no HTTP\r\n\r\n")
            return False
    body = answer.body or b"{}"
    length = 1 << 40 if answer.fault == "endless" else len(body)
    headers = {"Content-Type": "application/json", "Content-Length": str(length), **answer.headers}
    head = f"HTTP/1.1 {answer.status} Scripted\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(head.encode("latin1") + b"\r\n")
    await writer.drain()
    return await _send(body, answer.fault, writer)


async def _send(body: bytes, fault: str, writer: asyncio.StreamWriter) -> bool:
    match fault:
        case "stall":
            await asyncio.Event().wait()
        case "endless":
            while True:
                writer.write(ENDLESS_PIECE)
                await writer.drain()
        case "drip":
            for at in range(len(body)):
                await asyncio.sleep(DRIP_SECONDS)
                writer.write(body[at : at + 1])
        case "cut":
            writer.write(body[: len(body) // 2])
            return False
        case _:
            writer.write(body)
    await writer.drain()
    return True
