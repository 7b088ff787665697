"""Notices: which events go to which target, how many events one notice sums up, and when it is sent and retried.

An event is a fact that people need to know, such as a report that was given up. Events of one kind and route become
one notice for each target, so that a storm of events is a bounded number of notices. The ledger keeps all of it
(store/notices.py); docs/decisions/0041-notices.md has the reasons.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from bridge.domain.build import BuildNo
from bridge.domain.instants import DAY, HOUR, MINUTE, SECOND, Duration, Instant, after
from bridge.domain.no_proxy import NoProxyEntry
from bridge.domain.retry import delay_us, delay_with_retry_after
from bridge.domain.secret_search import MIN_SECRET_CHARACTERS
from bridge.domain.text_format import counted
from bridge.values import dataclass

GROUP_WAIT: Final = Duration(10 * SECOND)
"""From the first event of a group to its notice: what fails together is in one notice."""

GROUP_INTERVAL: Final = Duration(5 * MINUTE)
"""From one notice of a group to the next: events in between are summed up."""

SLOT_INTERVAL: Final = Duration(6 * SECOND)
SLOT_BURST: Final = 5
"""A target gets at most 10 notices a minute in the long run and 15 in any minute. DingTalk and WeCom allow 20."""

FIRST_RETRY: Final = Duration(5 * SECOND)
MAX_RETRY: Final = Duration(10 * MINUTE)
"""The delay after a failure doubles from the first to the second. A notice is retried as long as its target is set."""

SEND_LEASE: Final = Duration(MINUTE)
"""Longer than a call may take. If the gateway ends while it sends, the same notice is sent after this time."""

FAR_AHEAD: Final = Duration(HOUR)
"""A due time further ahead was read from a clock that was ahead: it counts as due."""

ABANDONED_AFTER: Final = Duration(DAY)
"""Events for a target that no gateway has in its settings any more are kept this long, for a reload taken back."""

MAX_DETAILS: Final = 5
"""Events of a notice that are listed; the others are counted."""

MAX_TEXT_CHARACTERS: Final = 600
LONG_SEGMENT: Final = 16
"""A part of a URL with so many characters may be a key, whatever they are."""


class EventKind(StrEnum):
    """What a notice is about; the values of `notices.events`."""

    DEAD_DELIVERY = "dead_delivery"
    STUCK_RUN = "stuck_run"
    BLOCKED_ROUTE = "blocked_route"
    REJECTED_UPLOAD = "rejected_upload"
    RESULT_MISMATCH = "result_mismatch"
    BUILD_WITHOUT_REPORTS = "build_without_reports"
    UPSTREAM_AWAY = "upstream_away"
    CERTIFICATE_ENDS = "certificate_ends"


SUBJECTS: Final = {
    EventKind.DEAD_DELIVERY: "report given up|reports given up",
    EventKind.STUCK_RUN: "run stuck at TestNod|runs stuck at TestNod",
    EventKind.BLOCKED_ROUTE: "build blocked|builds blocked",
    EventKind.REJECTED_UPLOAD: "upload rejected|uploads rejected",
    EventKind.RESULT_MISMATCH: "build differs from its reports|builds differ from their reports",
    EventKind.BUILD_WITHOUT_REPORTS: "build ended without reports|builds ended without reports",
    EventKind.UPSTREAM_AWAY: "upstream away or back|upstreams away or back",
    EventKind.CERTIFICATE_ENDS: "certificate ends|certificates end",
}
"""The title of a notice after its count: for one event, and for several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeEvent:
    """One event, or `count` equal ones of a build in one commit; `text` states what happened and what to do."""

    kind: EventKind
    route: str  # empty: of no route, or of one that is not known
    targets: tuple[str, ...]  # ids of the targets that get it
    text: str
    job_id: str = ""
    build_no: BuildNo | None = None
    count: int = 1


# -- targets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeFilter:
    """What one `[[notices]]` table takes; an empty set takes all."""

    kinds: frozenset[EventKind] = frozenset()
    routes: frozenset[str] = frozenset()

    def takes(self, kind: EventKind, route: str) -> bool:
        """Return whether events of this kind and route are wanted. With routes, events of no route are not."""
        return (not self.kinds or kind in self.kinds) and (not self.routes or route in self.routes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscriptions:
    """The filters of each target, by its id. It is false without targets: then no event is recorded."""

    filters: tuple[tuple[str, tuple[NoticeFilter, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.filters)

    def targets(self, kind: EventKind, route: str) -> tuple[str, ...]:
        """Return the ids of the targets that want events of this kind and route."""
        return tuple(target for target, filters in self.filters if any(each.takes(kind, route) for each in filters))

    def wants(self, kind: EventKind) -> bool:
        """Return whether any target wants events of this kind, of whatever route."""
        return any(not each.kinds or kind in each.kinds for _, filters in self.filters for each in filters)


NO_SUBSCRIPTIONS: Final = Subscriptions()


def is_inside(url: str, own_network: Iterable[NoProxyEntry]) -> bool:
    """Return whether the settings place the host of `url` inside the own network, so that its address may be private.

    That is so for an address, for localhost, and for hosts of `outbound.no_proxy`.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return host == "localhost" or any(entry.matches(host, port) for entry in own_network)
    return True


def secret_parts(url: str) -> tuple[str, ...]:
    """Return what must not be shown of a URL: keys in its path, query or user name, as written and unquoted.

    Not the whole URL, and no plain words: what looks like a part of a secret is redacted wherever it occurs. Raise
    ValueError if `url` is no URL.
    """
    parts = urlsplit(url)
    values = (item.partition("=")[2] or item for item in parts.query.split("&"))
    pieces = [
        piece for piece in (*parts.path.split("/"), *values, parts.username or "") if _looks_like_key(unquote(piece))
    ]
    return tuple(sorted({text for piece in pieces for text in (piece, unquote(piece))}))


def _looks_like_key(text: str) -> bool:
    """Return whether a text has letters and digits, capitals after its first letter, or more letters than words have.

    "reports", "Reports", "2026" and "v2" are no keys.
    """
    if len(text) < MIN_SECRET_CHARACTERS:
        return False
    has_letters, has_digits = any(map(str.isalpha, text)), any(map(str.isdigit, text))
    mixed = any(map(str.islower, text)) and any(map(str.isupper, text[1:]))
    return (has_letters and has_digits) or mixed or len(text) >= LONG_SEGMENT


# -- groups ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class EventDetail:
    """One event as a notice lists it."""

    at: Instant
    text: str
    job_id: str = ""
    build_no: BuildNo | None = None
    count: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeSum:
    """Events that one notice sums up: how many, from when to when, and the first MAX_DETAILS of them."""

    count: int = 0
    first_at: Instant | None = None
    last_at: Instant | None = None
    details: tuple[EventDetail, ...] = ()

    def with_events(self, details: Sequence[EventDetail]) -> "NoticeSum":
        """Return the sum of these events and further ones."""
        times = [detail.at for detail in details]
        times += [at for at in (self.first_at, self.last_at) if at is not None]
        return NoticeSum(
            count=self.count + sum(detail.count for detail in details),
            first_at=min(times, default=None),
            last_at=max(times, default=None),
            # A build that was forgotten is counted, and nothing about it is listed.
            details=(*self.details, *(each for each in details if each.text))[:MAX_DETAILS],
        )

    @property
    def uncounted(self) -> int:
        """Return how many events are in no detail."""
        return self.count - sum(detail.count for detail in self.details)


def collecting_until(now: Instant, sent_at: Instant | None) -> Instant:
    """Return when a group that gets its first event `now` is sent; `sent_at` is when its last notice was."""
    earliest = after(now, GROUP_WAIT)
    if sent_at is None or sent_at > now:
        return earliest
    return max(earliest, after(sent_at, GROUP_INTERVAL))


def is_due(due_at: Instant | None, now: Instant) -> bool:
    """Return whether the time has come, or was written by a clock that was far ahead."""
    return due_at is not None and (due_at <= now or due_at > after(now, FAR_AHEAD))


def next_slot(slot_at: Instant, now: Instant) -> Instant | None:
    """Return what to write to the ledger as the target's next slot if a notice may be sent `now`; None if not yet."""
    if is_due(slot_at, now):
        slot_at = now
    if slot_at - now > (SLOT_BURST - 1) * SLOT_INTERVAL:
        return None
    return after(slot_at, SLOT_INTERVAL)


def retry_delay(failures: int, pause_seconds: float | None, *, salt: str) -> Duration:
    """Return how long a target that has failed so often in a row is left alone; it may have asked for a pause."""
    planned = delay_us(failures, first_us=FIRST_RETRY, max_us=MAX_RETRY, salt=salt)
    return delay_with_retry_after(planned, pause_seconds, max_us=MAX_RETRY)


# -- the notice --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeLine:
    """One event in a notice: its text, and the address of its page or the command that explains it."""

    text: str
    detail: EventDetail
    url: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What is sent to a target. `id` is the same for every attempt, so that a receiver recognizes a repetition."""

    id: str
    kind: str  # an EventKind, or "test"
    route: str
    title: str
    lines: tuple[NoticeLine, ...]
    count: int
    more: int  # events without a line
    first_at: Instant
    last_at: Instant


def title_of(kind: EventKind, route: str, count: int) -> str:
    """Return the title of a notice: "bridge: 3 reports given up (route shop)"."""
    one, several = SUBJECTS[kind].split("|")
    of_route = f" (route {route})" if route else ""
    return f"bridge: {count} {one if count == 1 else several}{of_route}"


def more_of(count: int) -> str:
    """Return the last line of a notice: how many events it does not list."""
    return f"And {counted(count, 'more event')}." if count else ""


def to_json(total: NoticeSum) -> dict[str, Any]:
    """Return a sum as JSON, for the ledger."""
    details = [
        {"at": each.at, "text": each.text, "job_id": each.job_id, "build_no": each.build_no, "count": each.count}
        for each in total.details
    ]
    return {"count": total.count, "first_at": total.first_at, "last_at": total.last_at, "details": details}


def from_json(value: dict[str, Any] | None) -> NoticeSum:
    """Return the sum that `to_json` wrote, also that of another version; an empty one for None."""
    if value is None:
        return NoticeSum()
    details = tuple(detail_from_json(detail, value.get("first_at")) for detail in value.get("details", ()))
    return NoticeSum(**{**_known(NoticeSum, value), "details": details})


def detail_from_json(value: dict[str, Any], at: Instant | None) -> EventDetail:
    """Return one event, also of another version; `at` is when it happened if `value` does not contain that."""
    return EventDetail(**{"at": at or Instant(0), "text": "", **_known(EventDetail, value)})


def _known(kind: type[EventDetail | NoticeSum], value: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: item for name, item in value.items() if name in names}
