"""The rates of CodeArts' APIs that all gateways of a ledger share (`domain/request_rate.py`), by account and API."""

from collections.abc import Sequence

from sqlalchemy import Connection, String, and_, bindparam, select, update

from bridge.domain.instants import Duration, Instant, after
from bridge.domain.request_rate import Api, RequestRate, admit, corrected, count_answered, refuse, take_slots, throttle
from bridge.store.engine.compiled import Statement
from bridge.store.schema import asked_questions, request_rates
from bridge.store.sql_helpers import insert_new
from bridge.values import dataclass

OF_API = and_(
    request_rates.c.account == bindparam("of_account", type_=String),
    request_rates.c.api == bindparam("of_api", type_=String),
)
LOCK_RATE = Statement(select(request_rates.c.rate).where(OF_API).with_for_update())
SET_RATE = Statement(
    update(request_rates).where(OF_API).values(rate=bindparam("new_rate", type_=request_rates.c.rate.type))
)


@dataclass(frozen=True, kw_only=True)
class ThrottledCall:
    """A call that CodeArts throttled."""

    sent_at: Instant
    retry_after_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class RateUse:
    """What calls of one account to one API have shown since the last use, and what is wanted now.

    `highest` is `polling.requests_per_minute`. Of the `answered` calls, the last was sent at `sent_at`.
    """

    account: str
    api: Api
    highest: float
    answered: int = 0
    sent_at: Instant | None = None
    throttled: ThrottledCall | None = None
    refused: bool = False  # the account may not make the call
    takes: int = 0  # slots
    asks: bool = False  # for admission of one call


@dataclass(frozen=True, kw_only=True)
class RateGrant:
    """The rate after a use, the times of the slots that were taken, and the turn of a call that was not admitted."""

    rate: RequestRate
    slots: tuple[Instant, ...] = ()
    turn: Instant | None = None


def use_rates(connection: Connection, now: int, items: Sequence[RateUse]) -> list[RateGrant]:
    """Apply the uses to the rates of their APIs; each slot is given once over all gateways."""
    keys = sorted({(item.account, item.api) for item in items})  # locked in this order, which avoids deadlocks
    highest = {(item.account, item.api): item.highest for item in items}
    rates = {key: corrected(_lock(connection, *key, highest[key]), Instant(now), highest[key]) for key in keys}
    before = dict(rates)
    grants = []
    for item in items:
        grant = _apply(rates[item.account, item.api], Instant(now), item)
        rates[item.account, item.api] = grant.rate
        grants.append(grant)
    SET_RATE.run_each(
        connection,
        [{**_key(*key), "new_rate": vars(rate)} for key, rate in rates.items() if rate != before[key]],
    )
    return grants


def _apply(rate: RequestRate, now: Instant, use: RateUse) -> RateGrant:
    if use.answered:
        rate = count_answered(rate, now, use.answered, use.highest, sent_at=use.sent_at)
    if use.throttled is not None:
        call = use.throttled
        rate = throttle(rate, now, sent_at=call.sent_at, retry_after_seconds=call.retry_after_seconds)
    if use.refused:
        rate = refuse(rate, now)
    turn: Instant | None = None
    slots: tuple[Instant, ...] = ()
    if use.asks:
        rate, turn = admit(rate, now)
    if use.takes:
        rate, taken = take_slots(rate, now, use.takes)
        slots = tuple(taken)
    return RateGrant(rate=rate, slots=slots, turn=turn)


def _lock(connection: Connection, account: str, api: Api, highest: float) -> RequestRate:
    found = LOCK_RATE.first(connection, _key(account, api))
    if found is None:
        row = {"account": account, "api": api.value, "rate": vars(RequestRate(per_minute=highest))}
        insert_new(connection, request_rates, [row])
        [found] = LOCK_RATE.rows(connection, _key(account, api))
    return RequestRate(**found[0])


def read_rates(connection: Connection, account: str) -> dict[Api, RequestRate]:
    """Return the rates of an account by API; those of calls that were never made are missing."""
    query = select(request_rates.c.api, request_rates.c.rate).where(request_rates.c.account == account)
    known = {api.value: api for api in Api}
    return {known[row.api]: RequestRate(**row.rate) for row in connection.execute(query) if row.api in known}


def _key(account: str, api: Api) -> dict[str, object]:
    return {"of_account": account, "of_api": api.value}


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionClaim:
    """The right to ask about `subject`, unless a gateway of the ledger has asked within `interval`."""

    subject: str
    interval: Duration


def claim_questions(connection: Connection, now: int, items: Sequence[QuestionClaim]) -> list[bool]:
    """Claim questions; True for one gateway of those that would ask the same within the interval."""
    by_subject = sorted(enumerate(items), key=lambda numbered: numbered[1].subject)  # the order of locks
    claimed = {number: _claim(connection, Instant(now), item) for number, item in by_subject}
    return [claimed[number] for number in range(len(items))]


def _claim(connection: Connection, now: Instant, claim: QuestionClaim) -> bool:
    if insert_new(connection, asked_questions, [{"subject": claim.subject, "asked_at": now}], "subject"):
        return True
    before = after(now, Duration(-claim.interval))
    # A time after now was written by a wrong clock.
    due = and_(
        asked_questions.c.subject == claim.subject,
        (asked_questions.c.asked_at <= before) | (asked_questions.c.asked_at > now),
    )
    return bool(connection.execute(update(asked_questions).where(due).values(asked_at=now)).rowcount)


def asked_since(connection: Connection, subjects: Sequence[str]) -> dict[str, Instant]:
    """Return when a gateway last asked about each subject."""
    query = select(asked_questions.c.subject, asked_questions.c.asked_at)
    rows = connection.execute(query.where(asked_questions.c.subject.in_(subjects)))
    return {row.subject: Instant(row.asked_at) for row in rows}
