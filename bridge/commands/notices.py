"""`bridge notices test`: sends a test notice to each target of the settings, without the gateway and its ledger."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from bridge.app.config_mapping import to_outbound_proxy
from bridge.app.notices import open_notice_client, to_notice_sinks
from bridge.client.notices import NoticeSink
from bridge.clock import SystemClock
from bridge.commands.config import read_settings
from bridge.commands.console import print_note, print_result
from bridge.domain.instants import Instant
from bridge.domain.notices import EventDetail, Notice, NoticeLine
from bridge.domain.text_format import printable
from bridge.errors import BridgeError
from bridge.protocols.notices import NoticeArrived, NoticeRejected
from bridge.settings import Settings, secret_values
from bridge.telemetry.redaction import Redactor

TEXT: Final = "`bridge notices test` sent this. Nothing has happened, and nothing is to be done."


def send_test_notices(path: Path) -> bool:
    """Send a test notice to each target and print what came of it; return whether all arrived."""
    settings = read_settings(path)
    if not settings.notices:
        raise BridgeError("The settings have no [[notices]] table. Add one with the url of a webhook.")
    redactor = Redactor()
    redactor.register(secret_values(settings))
    results = asyncio.run(_send(settings))
    for sink, result in results:
        if isinstance(result, NoticeArrived):
            print_result(f"{sink.label}: the test notice arrived.")
        else:
            print_note(f"{sink.label}: {printable(redactor.text(result.message))}")
    return all(isinstance(result, NoticeArrived) for _, result in results)


async def _send(settings: Settings) -> list[tuple[NoticeSink, NoticeArrived | NoticeRejected]]:
    outbound = await asyncio.to_thread(to_outbound_proxy, settings)
    async with AsyncExitStack() as stack:
        client = await open_notice_client(outbound, stack)
        now = SystemClock().now()
        sinks = list(to_notice_sinks(settings).values())
        return list(
            zip(sinks, await asyncio.gather(*(client.send(sink, _notice(now), now) for sink in sinks)), strict=True)
        )


def _notice(now: Instant) -> Notice:
    return Notice(
        id=f"test_{uuid.uuid4().hex}",
        kind="test",
        route="",
        title="bridge: a test notice",
        lines=(NoticeLine(text=TEXT, detail=EventDetail(at=now, text=TEXT)),),
        count=1,
        more=0,
        first_at=now,
        last_at=now,
    )
