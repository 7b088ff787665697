"""Notices in the ledger: events as they happen, groups of them for each target, and the right to send a notice.

Events are inserted in the commit of their fact, which locks no row. A gateway moves them into the groups
(`group_events`), and sends a group under a lease with a fencing token: every attempt sends the same notice. So several
gateways send each notice once, and a kill loses none.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Text, and_, cast, delete, exists, func, insert, or_, select, update

from bridge.domain.instants import Instant, after
from bridge.domain.notice_events import ANNOUNCED_FOR, CERTIFICATE, Condition
from bridge.domain.notices import (
    ABANDONED_AFTER,
    FAR_AHEAD,
    GROUP_INTERVAL,
    SEND_LEASE,
    EventDetail,
    EventKind,
    NoticeEvent,
    NoticeSum,
    collecting_until,
    detail_from_json,
    from_json,
    is_due,
    next_slot,
    retry_delay,
    to_json,
)
from bridge.store.engine.base import one_statement
from bridge.store.restore_pause import paused_since
from bridge.store.schema import notice_conditions, notice_events, notice_targets, notices
from bridge.store.sql_helpers import insert_new
from bridge.values import dataclass

GROUPED_AT_ONCE: Final = 1_000
"""Events that one commit groups, so that it stays short."""

KNOWN_KINDS: Final = tuple(kind.value for kind in EventKind)
"""Rows of other kinds are of a newer version of the gateway, which runs beside this one and sends them."""

GROUP_KEY = (notices.c.target, notices.c.kind, notices.c.route)


class GroupKey(NamedTuple):
    """What makes a group."""

    target: str
    kind: EventKind
    route: str


# -- events ------------------------------------------------------------------------------------------------------


def add_events(connection: Connection, now: int, events: Sequence[NoticeEvent]) -> None:
    """Insert events, in the commit of their facts. It locks nothing, so that it delays no other write."""
    rows = [
        {
            "happened_at": now,
            "kind": event.kind.value,
            "route": event.route,
            "targets": list(event.targets),
            "count": event.count,
            "detail": asdict(
                EventDetail(
                    at=Instant(now),
                    text=event.text,
                    job_id=event.job_id,
                    build_no=event.build_no,
                    count=event.count,
                )
            ),
        }
        for event in events
    ]
    if rows:
        connection.execute(insert(notice_events), rows)


def group_events(connection: Connection, now: int) -> int:
    """Move up to GROUPED_AT_ONCE events into the groups of their targets; return how many were moved."""
    known = select(notice_events).where(notice_events.c.kind.in_(KNOWN_KINDS))
    oldest = known.order_by(notice_events.c.id).limit(GROUPED_AT_ONCE)
    rows = connection.execute(oldest.with_for_update(skip_locked=True)).all()
    found: defaultdict[GroupKey, list[EventDetail]] = defaultdict(list)
    for row in rows:
        for target in row.targets:
            detail = detail_from_json(row.detail, row.happened_at)
            found[GroupKey(target, EventKind(row.kind), row.route)].append(detail)
    for key in sorted(found):  # the order in which all writers lock groups
        _add_to_group(connection, Instant(now), key, found[key])
    if rows:
        connection.execute(delete(notice_events).where(notice_events.c.id.in_([row.id for row in rows])))
    return len(rows)


def _add_to_group(connection: Connection, now: Instant, key: GroupKey, details: Sequence[EventDetail]) -> None:
    insert_new(connection, notices, [{**key._asdict(), "fencing_token": 0}])
    group = connection.execute(select(notices).where(_is(key)).with_for_update()).one()
    values: dict[str, Any] = {"collected": to_json(from_json(group.collected).with_events(details))}
    if group.due_at is None:
        values["due_at"] = collecting_until(now, group.sent_at)
    connection.execute(update(notices).where(_is(key)).values(values))


def _is(key: GroupKey) -> ColumnElement[bool]:
    return and_(*(column == value for column, value in zip(GROUP_KEY, key, strict=True)))


# -- sending -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingNotices:
    """What waits: events that are not grouped, targets with a group that is due, and all events without a notice.

    A ledger that is `paused` is a copy: another gateway sends what it has. `unreadable` are those of `events` that only
    a newer version of the gateway can send.
    """

    paused: bool
    ungrouped: bool
    due: tuple[str, ...]
    events: int
    unreadable: int


def pending_notices(connection: Connection, now: int) -> PendingNotices:
    """Return what waits to be grouped and sent."""
    of_kinds = select(notice_events.c.kind, func.sum(notice_events.c.count)).group_by(notice_events.c.kind)
    ungrouped = {kind: int(count) for kind, count in connection.execute(of_kinds)}
    due: list[str] = []
    counts = Counter(ungrouped)
    waiting = select(notices.c.target, notices.c.kind, notices.c.due_at, notices.c.collected, notices.c.sealed)
    for row in connection.execute(waiting.where(notices.c.due_at.is_not(None)).order_by(notices.c.due_at)):
        counts[row.kind] += _count_of(row.collected) + _count_of(row.sealed)
        if row.kind in KNOWN_KINDS and is_due(row.due_at, Instant(now)) and row.target not in due:
            due.append(row.target)
    return PendingNotices(
        paused=paused_since(connection) is not None,
        ungrouped=any(kind in KNOWN_KINDS for kind in ungrouped),
        due=tuple(due),
        events=counts.total(),
        unreadable=sum(count for kind, count in counts.items() if kind not in KNOWN_KINDS),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedNotice:
    """A notice that this gateway sends now; `key` is the same at every attempt."""

    group: GroupKey
    key: str
    total: NoticeSum
    fencing_token: int


def claim_notice(connection: Connection, now: int, targets: Sequence[str]) -> list[ClaimedNotice | None]:
    """Lease the notice of each target that has been due the longest; None if none is, or its rate limit is reached."""
    claimed = {target: _claim(connection, Instant(now), target) for target in sorted(set(targets))}
    return [claimed.pop(target, None) for target in targets]


def _claim(connection: Connection, now: Instant, target: str) -> ClaimedNotice | None:
    state = _lock_target(connection, target)
    slot_at = next_slot(Instant(state.slot_at), now)
    if slot_at is None or not is_due(state.due_at, now):
        return None
    free = or_(notices.c.lease_until.is_(None), _has_come(notices.c.lease_until, now))
    of_target = (notices.c.target == target, notices.c.kind.in_(KNOWN_KINDS))
    due = select(notices).where(*of_target, _has_come(notices.c.due_at, now), free)
    row = connection.execute(due.order_by(notices.c.due_at).limit(1).with_for_update()).one_or_none()
    if row is None:
        return None
    group = GroupKey(target, EventKind(row.kind), row.route)
    sealed = row.sealed or {"key": _notice_key(group, row.fencing_token, row.collected), **row.collected}
    values = {
        "sealed": sealed,
        "collected": row.collected if row.sealed else None,
        "lease_until": after(now, SEND_LEASE),
        "fencing_token": row.fencing_token + 1,
    }
    connection.execute(update(notices).where(_is(group)).values(values))
    connection.execute(update(notice_targets).where(notice_targets.c.target == target).values(slot_at=slot_at))
    total = from_json({name: value for name, value in sealed.items() if name != "key"})
    return ClaimedNotice(group=group, key=sealed["key"], total=total, fencing_token=row.fencing_token + 1)


def _has_come(column: ColumnElement[int], now: Instant) -> ColumnElement[bool]:
    return or_(column <= now, column > after(now, FAR_AHEAD))


def _notice_key(group: GroupKey, fencing_token: int, collected: Mapping[str, Any]) -> str:
    """Return an id that no other notice has: a group's token rises with each attempt, and its times differ."""
    text = "\0".join((*group, str(fencing_token), *(str(collected[name]) for name in ("first_at", "last_at", "count"))))
    return f"notice_{sha256(text.encode()).hexdigest()[:32]}"


def _lock_target(connection: Connection, target: str) -> Any:
    query = select(notice_targets).where(notice_targets.c.target == target).with_for_update()
    found = connection.execute(query).one_or_none()
    if found is None:
        insert_new(connection, notice_targets, [{"target": target, "slot_at": 0, "due_at": 0, "failures": 0}])
        found = connection.execute(query).one()
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class NoticeResult:
    """The outcome of an attempt to send a claimed notice; `error` is None if it arrived."""

    claimed: ClaimedNotice
    label: str  # of the target, for people
    error: str | None = None
    pause_seconds: float | None = None  # that the target asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetState:
    """How often a target has failed in a row, and since when."""

    failures: int
    failing_since: Instant | None


def finish_notice(connection: Connection, now: int, items: Sequence[NoticeResult]) -> list[TargetState | None]:
    """Record outcomes; return how the target is doing, None if another gateway has claimed the notice meanwhile."""
    ordered = sorted(enumerate(items), key=lambda item: item[1].claimed.group)
    results = {number: _finish(connection, Instant(now), item) for number, item in ordered}
    return [results[number] for number in range(len(items))]


def _finish(connection: Connection, now: Instant, item: NoticeResult) -> TargetState | None:
    group = item.claimed.group
    target = _lock_target(connection, group.target)
    row = connection.execute(select(notices).where(_is(group)).with_for_update()).one_or_none()
    if row is None or row.fencing_token != item.claimed.fencing_token:
        return None
    if item.error is None:
        state = TargetState(failures=0, failing_since=None)
        due_at = after(now, GROUP_INTERVAL) if row.collected else None
        values: dict[str, Any] = {"sealed": None, "sent_at": now, "due_at": due_at, "lease_until": None}
        again_at = Instant(0)
    else:
        failing_since = now if target.failing_since is None else Instant(target.failing_since)
        state = TargetState(failures=target.failures + 1, failing_since=failing_since)
        again_at = after(now, retry_delay(state.failures, item.pause_seconds, salt=group.target))
        values = {"due_at": again_at, "lease_until": None}
    connection.execute(update(notices).where(_is(group)).values(values))
    of_target = {**asdict(state), "last_error": item.error, "due_at": again_at, "label": item.label}
    connection.execute(update(notice_targets).where(notice_targets.c.target == group.target).values(of_target))
    return state


@dataclass(frozen=True, kw_only=True, slots=True)
class FailingTarget:
    """A target whose last notice did not arrive."""

    target: str
    label: str
    failures: int
    failing_since: Instant
    last_error: str


@one_statement
def failing_targets(connection: Connection) -> list[FailingTarget]:
    """Return the targets that fail."""
    names = ("target", "label", "failures", "failing_since", "last_error")
    query = select(*(notice_targets.c[name] for name in names)).where(notice_targets.c.failures > 0)
    return [FailingTarget(**row) for row in connection.execute(query.order_by(notice_targets.c.target)).mappings()]


# -- conditions --------------------------------------------------------------------------------------------------


@one_statement
def announced_conditions(connection: Connection) -> dict[str, Instant]:
    """Return since when each condition lasts that was announced, by its subject."""
    rows = connection.execute(select(notice_conditions.c.subject, notice_conditions.c.began_at))
    return {subject: Instant(began_at) for subject, began_at in rows}


def begin_conditions(connection: Connection, now: int, items: Sequence[Condition]) -> list[bool]:
    """Record conditions and their events; False if one was announced already.

    One that began at another time is replaced: its end was not seen. Those of old certificates are deleted.
    """
    new = {}
    for item in sorted(items, key=lambda item: item.subject):
        row = {"subject": item.subject, "announced_at": now, "began_at": item.began_at or now}
        if item.began_at is not None:
            stale = notice_conditions.c.began_at != item.began_at
            connection.execute(delete(notice_conditions).where(notice_conditions.c.subject == item.subject, stale))
        new[item.subject] = bool(insert_new(connection, notice_conditions, [row], "subject"))
        if new[item.subject]:
            add_events(connection, now, (item.event,))
            old = notice_conditions.c.announced_at < now - ANNOUNCED_FOR
            connection.execute(
                delete(notice_conditions).where(old, notice_conditions.c.subject.like(f"{CERTIFICATE}%"))
            )
    return [new.get(item.subject, False) for item in items]


def end_conditions(connection: Connection, now: int, items: Sequence[Condition]) -> list[bool]:
    """Delete conditions and record that they have ended; False if another gateway did."""
    ended = {}
    for item in sorted(items, key=lambda item: item.subject):
        row = notice_conditions.c.subject == item.subject
        ended[item.subject] = bool(connection.execute(delete(notice_conditions).where(row)).rowcount)
        if ended[item.subject] and item.event.targets:
            add_events(connection, now, (item.event,))
    return [ended.get(item.subject, False) for item in items]


# -- forget ------------------------------------------------------------------------------------------------------


def forget_build_in_notices(connection: Connection, build: str) -> None:
    """Leave out what waiting notices list about a build, "{job_id}/{build_no}"; their counts stay."""

    def forgotten(detail: dict[str, Any]) -> dict[str, Any] | None:
        return None if f"{detail.get('job_id')}/{detail.get('build_no')}" == build else detail

    _edit_details(connection, build.partition("/")[0], forgotten)


def replace_in_notices(connection: Connection, old: str, new: str) -> int:
    """Replace a text in what waiting notices list; return how many rows have changed."""

    def replaced(detail: dict[str, Any]) -> dict[str, Any]:
        return {**detail, "text": str(detail.get("text", "")).replace(old, new)}

    return _edit_details(connection, old, replaced)


def _edit_details(connection: Connection, part: str, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> int:
    """Edit the details of rows that contain `part`; None leaves one out. Groups are locked as all writers do."""
    changed = 0
    quoted = json.dumps(part)[1:-1]  # as the ledger has it in JSON
    has_part = cast(notice_events.c.detail, Text).contains(quoted, autoescape=True)
    events = select(notice_events.c.id, notice_events.c.detail).where(has_part).with_for_update()
    for row in connection.execute(events.order_by(notice_events.c.id)).all():
        edited = edit(row.detail)
        if edited is None:
            edited = {"at": row.detail["at"], "text": "", "count": row.detail.get("count", 1)}
        if edited != row.detail:
            of_row = notice_events.c.id == row.id
            connection.execute(update(notice_events).where(of_row).values(detail=edited))
            changed += 1
    columns = (notices.c.collected, notices.c.sealed)
    has_part = or_(*(cast(column, Text).contains(quoted, autoescape=True) for column in columns))
    for row in connection.execute(select(notices).where(has_part).order_by(*GROUP_KEY).with_for_update()).all():
        values = {name: _edited(total, edit) for name, total in (("collected", row.collected), ("sealed", row.sealed))}
        if values != {"collected": row.collected, "sealed": row.sealed}:
            connection.execute(update(notices).where(_is(GroupKey(row.target, row.kind, row.route))).values(values))
            changed += 1
    return changed


def _edited(
    total: dict[str, Any] | None, edit: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> dict[str, Any] | None:
    if total is None:
        return None
    return {**total, "details": [each for each in map(edit, total["details"]) if each is not None]}


# -- targets that are gone ---------------------------------------------------------------------------------------


def has_abandoned(connection: Connection, targets: Sequence[str], now: int) -> bool:
    """Return whether `drop_abandoned` would delete anything."""
    wanted, idle = _abandoned(targets, now)
    found = select(exists().where(wanted), exists().where(idle))
    return any(connection.execute(found).one())


def drop_abandoned(connection: Connection, now: int, items: Sequence[tuple[str, ...]]) -> list[int]:
    """Delete groups of targets that no gateway has had in its settings for long; return how many events they had.

    `items` are the targets of this gateway. Groups without events are deleted too, of any target.
    """
    return [_drop_abandoned(connection, now, targets) for targets in items]


def _drop_abandoned(connection: Connection, now: int, targets: tuple[str, ...]) -> int:
    wanted, idle = _abandoned(targets, now)
    dropped = connection.execute(delete(notices).where(wanted).returning(notices.c.collected, notices.c.sealed)).all()
    connection.execute(delete(notices).where(idle))
    used = select(notices.c.target)
    unused = and_(notice_targets.c.target.not_in(targets), notice_targets.c.target.not_in(used))
    connection.execute(delete(notice_targets).where(unused))
    return sum(_count_of(row.collected) + _count_of(row.sealed) for row in dropped)


def _abandoned(targets: Sequence[str], now: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions of groups whose target is gone, and of groups that have been empty for long."""
    before = now - ABANDONED_AFTER
    gone = and_(notices.c.target.not_in(targets), notices.c.due_at.is_not(None), notices.c.due_at < before)
    return gone, and_(notices.c.due_at.is_(None), notices.c.sent_at < before)


def _count_of(total: dict[str, Any] | None) -> int:
    return int(total["count"]) if total else 0
