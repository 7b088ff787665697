"""The loop that groups events and sends notices; all is in the ledger first, so that a kill loses nothing."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from functools import partial
from typing import Final
from urllib.parse import quote

import structlog

from bridge.client.notices import NoticeClient, NoticeSink
from bridge.clock import Clock
from bridge.domain.instants import HOUR, SECOND, Duration, Instant
from bridge.domain.notice_events import Condition, certificate_condition, upstream_conditions
from bridge.domain.notices import NO_SUBSCRIPTIONS, EventDetail, EventKind, Notice, NoticeLine, Subscriptions, title_of
from bridge.errors import BridgeError
from bridge.protocols.notices import NoticeArrived, NoticeRejected
from bridge.store.circuit_breakers import open_breakers
from bridge.store.engine.base import Database, LedgerFunction
from bridge.store.notices import (
    ClaimedNotice,
    NoticeResult,
    PendingNotices,
    announced_conditions,
    begin_conditions,
    claim_notice,
    drop_abandoned,
    end_conditions,
    finish_notice,
    group_events,
    has_abandoned,
    pending_notices,
)
from bridge.telemetry.metrics import Metrics
from bridge.values import dataclass

INTERVAL_US: Final = SECOND
CONDITIONS_INTERVAL_US: Final = Duration(15 * SECOND)
SWEEP_INTERVAL_US: Final = HOUR
STOP_SECONDS: Final = 5.0
"""For notices that are being sent when the gateway stops. Others are sent after the next start."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeConfig:
    """What a reload replaces: targets, what they want, routes, and the address of the console, if there is one."""

    sinks: Mapping[str, NoticeSink] = field(default_factory=dict)
    subscriptions: Subscriptions = NO_SUBSCRIPTIONS
    routes: frozenset[str] = frozenset()  # those in the settings
    console_url: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateEnd:
    """When the certificate of the server listener ends, its digest, and its file."""

    ends_at: Instant
    fingerprint: str
    path: str


@dataclass(kw_only=True, slots=True)
class NoticeSender:
    """Sends what is due, one notice for each target at a time; a target that hangs delays no other.

    `redact` removes secrets from a text, `certificate` returns the end of the server listener's certificate.
    """

    database: Database
    clock: Clock
    stopping: asyncio.Event
    config: Callable[[], NoticeConfig]
    client: NoticeClient
    metrics: Metrics
    redact: Callable[[str], str]
    certificate: Callable[[], CertificateEnd | None] = lambda: None
    _sending: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # by target
    _has_unreadable: bool = False
    _next_at: dict[str, int] = field(default_factory=dict)  # by the steady clock, of work that is done now and then

    async def run(self, beat: Callable[[], None]) -> None:
        """Send until the worker stops; then wait a moment for what is being sent."""
        try:
            while not self.stopping.is_set():
                beat()
                try:
                    await self.step()
                except BridgeError as error:
                    log.warning("notices_postponed", error=str(error))
                await self.clock.wait(self.stopping, self.clock.now() + INTERVAL_US)
            await self.finish()
        finally:
            for task in self.sending:
                task.cancel()

    async def step(self) -> None:
        """Note conditions that begin or end, group events, and start to send what is due."""
        config = self.config()
        if self._is_time("sweep", SWEEP_INTERVAL_US):
            await self._sweep(config)
        if not config.subscriptions:
            self.metrics.set_pending_notice_events(0)
            return
        pending = await self.database.read(pending_notices, self.database.now())
        self.metrics.set_pending_notice_events(pending.events)
        if pending.unreadable and not self._has_unreadable:
            log.warning("notices_unreadable", events=pending.unreadable)
        self._has_unreadable = bool(pending.unreadable)
        await self._group(pending)
        if pending.paused:
            return
        if self._is_time("conditions", CONDITIONS_INTERVAL_US):
            await self._note_conditions(config)
        for target in pending.due:
            if target in config.sinks and target not in self._sending:
                await self._start(config, target)

    async def _group(self, pending: PendingNotices) -> None:
        """Group all events, also while the ledger is paused: groups are bounded, and events are not."""
        more = pending.ungrouped
        while more:
            more = bool(await self.database.transact(group_events))

    @property
    def sending(self) -> tuple[asyncio.Task[None], ...]:
        """Return the tasks that send."""
        return tuple(self._sending.values())

    async def finish(self) -> None:
        """Wait for what is being sent, STOP_SECONDS at most."""
        if self._sending:
            await asyncio.wait(self.sending, timeout=STOP_SECONDS)

    def _is_time(self, work: str, interval: Duration) -> bool:
        now = self.clock.steady()
        if now < self._next_at.get(work, now):
            return False
        self._next_at[work] = now + interval
        return True

    # -- sending -------------------------------------------------------------------------------------------------

    async def _start(self, config: NoticeConfig, target: str) -> None:
        claimed = await self.database.write(claim_notice, target)
        if claimed is None:
            return
        task = asyncio.create_task(self._send(config, claimed), name=f"notice to {target}")
        self._sending[target] = task
        task.add_done_callback(partial(self._forget, target))

    def _forget(self, target: str, task: asyncio.Task[None]) -> None:
        self._sending.pop(target, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("notice_task_failed", exc_info=error)

    async def _send(self, config: NoticeConfig, claimed: ClaimedNotice) -> None:
        sink = config.sinks[claimed.group.target]
        notice = self._notice(claimed, config.console_url)
        outcome = await self.client.send(sink, notice, self.clock.now())
        fields = {"target": sink.label, "kind": notice.kind, "route": notice.route, "events": notice.count}
        match outcome:
            case NoticeArrived():
                result = NoticeResult(claimed=claimed, label=sink.label)
                self.metrics.count_notice_sent(sink.format)
                log.info("notice_sent", **fields)
            case NoticeRejected(message=message, retry_after_seconds=pause):
                reason = self.redact(message)
                result = NoticeResult(claimed=claimed, label=sink.label, error=reason, pause_seconds=pause)
                self.metrics.count_notice_failed(sink.format)
        try:
            state = await self.database.write(finish_notice, result)
        except BridgeError as error:  # the lease ends, and the notice is sent once more, with the same id
            log.warning("notices_postponed", error=str(error))
            return
        if result.error is not None:
            failures = state.failures if state else None
            log.warning("notice_failed", reason=result.error, failures=failures, **fields)

    def _notice(self, claimed: ClaimedNotice, console_url: str) -> Notice:
        total, group = claimed.total, claimed.group
        now = self.database.now()
        return Notice(
            id=claimed.key,
            kind=group.kind,
            route=group.route,
            title=self.redact(title_of(group.kind, group.route, total.count)),
            lines=tuple(self._line(detail, console_url) for detail in total.details),
            count=total.count,
            more=total.uncounted,
            first_at=total.first_at or now,
            last_at=total.last_at or now,
        )

    def _line(self, detail: EventDetail, console_url: str) -> NoticeLine:
        build_no = detail.build_no
        detail = replace(
            detail,
            text=self.redact(detail.text),
            job_id=self.redact(detail.job_id),
            build_no=self.redact(build_no) if isinstance(build_no, str) else build_no,
        )
        if not detail.job_id or not console_url:
            return NoticeLine(text=detail.text, detail=detail)
        path = "/".join(quote(str(part), safe="") for part in (detail.job_id, detail.build_no))
        return NoticeLine(text=detail.text, detail=detail, url=f"{console_url}/builds/{path}")

    # -- conditions ----------------------------------------------------------------------------------------------

    async def _note_conditions(self, config: NoticeConfig) -> None:
        subscriptions = config.subscriptions
        database, now = self.database, self.database.now()
        announced = await database.read(announced_conditions)
        if announced or subscriptions.wants(EventKind.UPSTREAM_AWAY):
            breakers = await database.read(open_breakers)
            new, ended = upstream_conditions(breakers, announced, config.routes, now, subscriptions)
            await self._write(begin_conditions, new)
            await self._write(end_conditions, ended)
        certificate = self.certificate() if subscriptions.wants(EventKind.CERTIFICATE_ENDS) else None
        if certificate is not None:
            found = certificate_condition(
                certificate.ends_at, certificate.fingerprint, certificate.path, now, subscriptions
            )
            if found is not None and found.subject not in announced:
                await self._write(begin_conditions, [found])

    async def _write(self, function: LedgerFunction[Condition, bool], conditions: Iterable[Condition]) -> None:
        for condition in conditions:
            await self.database.write(function, condition)

    async def _sweep(self, config: NoticeConfig) -> None:
        """Delete what waits for targets that no gateway has had in its settings for a day.

        If the last target was removed, nothing else groups the events that it left.
        """
        if not config.subscriptions:
            await self._group(await self.database.read(pending_notices, self.database.now()))
            await self._note_conditions(config)  # that ends those of upstreams that are back
        targets = tuple(config.sinks)
        if not await self.database.read(has_abandoned, targets, self.database.now()):
            return
        dropped = await self.database.write(drop_abandoned, targets)
        if dropped:
            self.metrics.count_dropped_notice_events(dropped)
            log.warning("notices_dropped", events=dropped)
