"""Notices from the ledger to a webhook: grouped, limited, retried, and sent once by several gateways."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import structlog
from aiohttp import web
from pydantic import SecretStr
from sqlalchemy import func, insert, select

from bridge.client.notices import BLOCKED, NoticeClient, NoticeSink
from bridge.client.session import GuardedSession
from bridge.domain.circuit_breaker import TESTNOD, HealthSignal, storage_breaker
from bridge.domain.instants import DAY, HOUR, MINUTE, SECOND, Duration
from bridge.domain.notices import (
    GROUP_INTERVAL,
    GROUP_WAIT,
    SEND_LEASE,
    SLOT_BURST,
    SLOT_INTERVAL,
    EventKind,
    NoticeEvent,
    NoticeFilter,
    Subscriptions,
)
from bridge.protocols.notices import NoticeFormat
from bridge.store.circuit_breakers import BreakerSignal, apply_breaker_signals
from bridge.store.notices import add_events, failing_targets, pending_notices
from bridge.store.restore_pause import pause_ledger
from bridge.store.schema import notice_conditions, notice_events, notices
from bridge.telemetry.metrics import Metrics
from bridge.worker.notices import CertificateEnd, NoticeConfig, NoticeSender
from tests.support.processes import until
from tests.support.webhook_receiver import KEY, SECRET, WebhookReceiver

JOB = "a" * 32
TARGET = "target-1"
STORM = 10_000
PATIENCE_SECONDS = 60
TWO_SECONDS = Duration(2 * SECOND)


def an_event(kind=EventKind.DEAD_DELIVERY, route="shop", targets=(TARGET,), **other):
    values = {"text": "A report was given up. Upload it again.", "job_id": JOB, "build_no": 7, **other}
    return NoticeEvent(kind=kind, route=route, targets=targets, **values)


def a_sink(receiver, id_=TARGET, *, inside=True):
    return NoticeSink(
        id=id_,
        label="notices[0] (127.0.0.1)",
        url=SecretStr(receiver.url),
        format=NoticeFormat(receiver.format),
        secret=SecretStr(receiver.secret),
        inside=inside,
    )


def a_config(*sinks, **filters):
    wanted = tuple((sink.id, (NoticeFilter(**filters),)) for sink in sinks)
    sinks = {sink.id: sink for sink in sinks}
    return NoticeConfig(sinks=sinks, subscriptions=Subscriptions(filters=wanted), routes=frozenset({"shop"}))


@pytest.fixture
async def client():
    async with AsyncExitStack() as stack:
        guarded = GuardedSession("notices", public_only=True, blocked=BLOCKED)
        yield NoticeClient(
            public=await stack.enter_async_context(guarded),
            inside=await stack.enter_async_context(GuardedSession("notices")),
        )


@pytest.fixture
async def receiver(clock):
    async with WebhookReceiver(now=lambda: clock.now() / SECOND) as receiver:
        yield receiver


@pytest.fixture
def new_sender(database, clock, client):
    def new(config, **other):
        values = {
            "database": database,
            "clock": clock,
            "stopping": asyncio.Event(),
            "config": lambda: config,
            "client": client,
            "metrics": Metrics(),
            "redact": lambda text: text,
            **other,
        }
        return NoticeSender(**values)

    return new


@pytest.fixture
def sender(new_sender, receiver):
    return new_sender(a_config(a_sink(receiver)))


async def note(database, *events):
    await database.transact(lambda connection, now: add_events(connection, now, events))


async def work(sender, clock, us=MINUTE, *, every=TWO_SECONDS):
    """Let the sender work for so long; what it begins to send is answered before its next turn."""
    until = clock.now() + us
    while clock.now() < until:
        await sender.step()
        await sender.finish()
        clock.advance(min(every, until - clock.now()))
    await sender.step()
    await sender.finish()


def told(receiver):
    """Return how many events the receiver learned of; a repetition of a notice tells nothing new."""
    return sum({notice.id: notice.content["data"]["count"] for notice in receiver.received}.values())


def figure(sender, name):
    lines = sender.metrics.render().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and "_created" not in line)


async def count_of(database, table):
    query = select(func.count()).select_from(table)
    return await database.read(lambda connection: connection.execute(query).scalar_one())


def answers(*responses):
    """Script answers with a status and a JSON body each."""
    return [lambda _request, each=each: web.json_response(each[1], status=each[0]) for each in responses]


# -- one notice --------------------------------------------------------------------------------------------------


async def test_an_event_becomes_one_notice_with_what_happened_and_to_what(database, clock, sender, receiver):
    await note(database, an_event())
    await work(sender, clock)
    [notice] = receiver.received
    data = notice.content["data"]
    assert notice.content["type"] == "bridge.dead_delivery"
    assert (data["title"], data["route"], data["count"]) == ("bridge: 1 report given up (route shop)", "shop", 1)
    [event] = data["events"]
    assert (event["text"], event["job_id"], event["build_no"]) == ("A report was given up. Upload it again.", JOB, 7)
    assert receiver.faults == []
    assert figure(sender, 'bridge_notices_sent_total{format="json"}') == 1
    assert figure(sender, "bridge_notice_events_pending") == 0


@pytest.mark.parametrize("secret", ["", SECRET], ids=["unsigned", "signed"])
@pytest.mark.parametrize("format_", list(NoticeFormat))
async def test_each_format_is_as_its_vendor_describes_it(database, clock, new_sender, format_, secret):
    secret = "" if format_ in ("slack", "wecom") else secret
    secret = f"whsec_{secret[3:]}" if secret and format_ == "json" else secret
    now = lambda: clock.now() / SECOND  # noqa: E731 -- a clock
    async with WebhookReceiver(format=format_, secret=secret, now=now) as receiver:
        sender = new_sender(replace(a_config(a_sink(receiver)), console_url="http://console.example"))
        await note(database, an_event(), an_event(kind=EventKind.STUCK_RUN), an_event(route=""))
        await work(sender, clock)
        assert receiver.faults == []
        assert len(receiver.received) == 3
        for notice in receiver.received:
            assert "A report was given up." in notice.text
            assert f"http://console.example/builds/{JOB}/7" in notice.text


async def test_the_link_is_left_out_if_no_address_of_the_console_is_known(database, clock, sender, receiver):
    await note(database, an_event())
    await work(sender, clock)
    assert receiver.received[0].content["data"]["events"][0]["url"] is None


async def test_secrets_are_redacted_in_what_notices_say(database, clock, new_sender, receiver):
    sender = new_sender(a_config(a_sink(receiver)), redact=lambda text: text.replace("s3cret-token", "[redacted]"))
    sender.config = lambda: replace(a_config(a_sink(receiver)), console_url="http://console.example")
    text = "TestNod answered: s3cret-token is not known"
    await note(database, an_event(text=text, job_id="s3cret-token", build_no="s3cret-token"))
    await work(sender, clock)
    assert "s3cret-token" not in json.dumps(receiver.received[0].content)


# -- groups and limits -------------------------------------------------------------------------------------------


async def test_events_of_routes_and_kinds_that_were_not_chosen_do_not_appear(database, clock, new_sender, receiver):
    filters = {"routes": frozenset({"shop"}), "kinds": frozenset({EventKind.DEAD_DELIVERY})}
    config = a_config(a_sink(receiver), **filters)
    wanted = config.subscriptions
    assert wanted.targets(EventKind.DEAD_DELIVERY, "shop") == (TARGET,)
    for kind, route in ((EventKind.DEAD_DELIVERY, "api"), (EventKind.STUCK_RUN, "shop"), (EventKind.DEAD_DELIVERY, "")):
        assert wanted.targets(kind, route) == ()
        await note(database, *(an_event(kind=kind, route=route, targets=targets) for targets in [()]))
    await note(database, an_event(targets=wanted.targets(EventKind.DEAD_DELIVERY, "shop")))
    await work(new_sender(config), clock)
    assert [notice.content["data"]["route"] for notice in receiver.received] == ["shop"]


async def test_a_storm_is_few_notices_whose_sums_add_up(database, clock, sender, receiver):
    for _ in range(100):
        await note(database, *([an_event()] * (STORM // 100)))
        await work(sender, clock, SECOND)
    await work(sender, clock, Duration(2 * GROUP_INTERVAL), every=Duration(5 * SECOND))
    assert told(receiver) == STORM
    assert len(receiver.received) <= 2 + (100 * SECOND) // GROUP_INTERVAL
    first = receiver.received[0].content["data"]
    assert len(first["events"]) == 5  # the others are counted
    assert first["count"] > 5
    assert await count_of(database, notice_events) == 0
    assert await count_of(database, notices) == 1


async def test_what_comes_while_a_notice_waits_is_in_it(database, clock, sender, receiver):
    await note(database, an_event())
    await work(sender, clock, GROUP_WAIT - 2 * SECOND)
    assert receiver.received == []
    await note(database, an_event(), an_event(kind=EventKind.STUCK_RUN))
    await work(sender, clock)
    assert [notice.content["data"]["count"] for notice in receiver.received] == [2, 1]


async def test_a_target_never_gets_more_notices_in_a_minute_than_it_takes(database, clock, sender, receiver):
    times = []
    groups = 60
    receiver.script = [lambda _request: times.append(clock.now()) or web.Response(status=204) for _ in range(groups)]
    await note(database, *(an_event(route=f"route-{number}") for number in range(groups)))
    await work(sender, clock, 10 * MINUTE)
    assert len(times) == groups
    for at in times:
        assert sum(at <= other < at + MINUTE for other in times) <= SLOT_BURST + MINUTE // SLOT_INTERVAL < 20


# -- failures ----------------------------------------------------------------------------------------------------


async def test_a_target_that_is_away_for_long_gets_everything_when_it_is_back(database, clock, sender, receiver):
    def refuse(_request):
        return web.Response(status=503)

    receiver.script = [refuse] * 100_000
    for _ in range(12):
        await note(database, an_event(), an_event(kind=EventKind.STUCK_RUN))
        await work(sender, clock, Duration(2 * HOUR), every=Duration(11 * MINUTE))
    assert await count_of(database, notices) == 2  # however many events wait
    [failing] = await database.read(failing_targets)
    assert "HTTP 503" in failing.last_error
    receiver.script = []
    await work(sender, clock, Duration(30 * MINUTE), every=Duration(20 * SECOND))
    assert told(receiver) == 24
    assert len(receiver.received) <= 4
    assert await database.read(failing_targets) == []
    assert figure(sender, "bridge_notices_failed_total") > 10


async def test_every_attempt_sends_the_same_notice_and_newer_events_follow_in_another(
    database, clock, sender, receiver
):
    seen = []

    def keep(request):
        seen.append(request.headers["webhook-id"])
        return web.Response(status=500)

    receiver.script = [keep, keep]
    await note(database, an_event())
    await work(sender, clock, GROUP_WAIT)
    await note(database, an_event())
    await work(sender, clock, Duration(15 * MINUTE), every=Duration(10 * SECOND))
    assert [notice.content["data"]["count"] for notice in receiver.received] == [1, 1]
    assert seen == [receiver.received[0].id] * 2
    assert receiver.received[1].id != receiver.received[0].id


@pytest.mark.parametrize(
    ("format_", "body", "reason"),
    [
        ("dingtalk", {"errcode": 310000, "errmsg": "keywords not in content"}, "code 310000"),
        ("dingtalk", {"errcode": 130101, "errmsg": "send too fast"}, "code 130101"),
        ("wecom", {"errcode": 45009, "errmsg": "api freq out of limit"}, "code 45009: api freq out of limit"),
        ("wecom", {"errcode": 93000, "errmsg": "invalid webhook url"}, "code 93000"),
        ("feishu", {"code": 11232, "msg": "frequency limited psm"}, "code 11232: frequency limited psm"),
        ("feishu", {"code": 19024, "msg": "Key Words Not Found"}, "code 19024"),
        ("feishu", {}, "HTTP 200 without a code"),
    ],
)
async def test_a_code_in_an_answer_of_200_is_a_failure_that_is_named(
    database, clock, new_sender, format_, body, reason
):
    async with WebhookReceiver(format=format_, now=lambda: clock.now() / SECOND) as receiver:
        receiver.script = answers((200, body))
        sender = new_sender(a_config(a_sink(receiver)))
        await note(database, an_event())
        await work(sender, clock, GROUP_WAIT)
        [failing] = await database.read(failing_targets)
        assert reason in failing.last_error
        await work(sender, clock, Duration(15 * MINUTE), every=Duration(30 * SECOND))
        assert len(receiver.received) == 1


async def test_a_target_that_throttles_is_left_alone_for_as_long_as_it_documents(database, clock, new_sender):
    async with WebhookReceiver(format="dingtalk", now=lambda: clock.now() / SECOND) as receiver:
        receiver.script = answers((200, {"errcode": 130101, "errmsg": "send too fast"}))
        sender = new_sender(a_config(a_sink(receiver)))
        await note(database, an_event(), an_event(route="api"))
        await work(sender, clock, Duration(9 * MINUTE), every=Duration(15 * SECOND))
        assert receiver.requests == 1
        await work(sender, clock, Duration(3 * MINUTE), every=Duration(5 * SECOND))
        assert len(receiver.received) == 2


async def test_a_redirect_is_not_followed(database, clock, sender, receiver):
    async with WebhookReceiver() as other:
        receiver.script = [lambda _request: web.Response(status=307, headers={"Location": other.url})]
        await note(database, an_event())
        await work(sender, clock, GROUP_WAIT)
        assert other.requests == 0
        [failing] = await database.read(failing_targets)
        assert "redirect" in failing.last_error


async def test_an_address_of_the_own_network_is_refused_unless_the_settings_place_it_there(
    database, clock, new_sender, receiver
):
    await note(database, an_event())
    await work(new_sender(a_config(a_sink(receiver, inside=False))), clock, GROUP_WAIT)
    assert receiver.requests == 0
    [failing] = await database.read(failing_targets)
    assert "not public" in failing.last_error
    assert "outbound.no_proxy" in failing.last_error
    await work(new_sender(a_config(a_sink(receiver))), clock)
    assert len(receiver.received) == 1


async def test_the_key_of_the_url_is_never_in_the_reason_of_a_failure(database, clock, new_sender):
    async with WebhookReceiver(format="wecom") as receiver:
        receiver.script = answers((200, {"errcode": 40001, "errmsg": f"invalid key {KEY} of {receiver.url}"}))
        await note(database, an_event())
        await work(new_sender(a_config(a_sink(receiver))), clock, GROUP_WAIT)
        [failing] = await database.read(failing_targets)
        assert "40001" in failing.last_error
        assert KEY not in failing.last_error


async def test_a_target_that_hangs_delays_no_other(database, clock, new_sender, receiver):
    hanging, over = asyncio.Event(), asyncio.Event()

    async def hang(_request):
        hanging.set()
        await over.wait()
        return web.Response(status=204)

    async with WebhookReceiver() as stuck:
        stuck.script = [hang]
        sender = new_sender(a_config(a_sink(stuck, "stuck"), a_sink(receiver)))
        await note(database, an_event(targets=("stuck", TARGET)))
        await sender.step()
        clock.advance(GROUP_WAIT)
        await sender.step()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await hanging.wait()
        await until(lambda: len(receiver.received) == 1, "the other target has its notice")
        over.set()
        await sender.finish()
    assert (len(receiver.received), stuck.script) == (1, [])


# -- several gateways, and gateways that end ---------------------------------------------------------------------


async def test_a_notice_of_a_gateway_that_ends_while_it_sends_is_sent_by_another_with_the_same_id(
    database, clock, new_sender, receiver
):
    arrived: asyncio.Queue[str] = asyncio.Queue()

    over = asyncio.Event()

    async def hang(request):
        await arrived.put(request.headers["webhook-id"])
        await over.wait()
        return web.Response(status=204)

    receiver.script = [hang]
    config = a_config(a_sink(receiver))
    first, second = new_sender(config), new_sender(config)
    await note(database, an_event())
    await first.step()
    clock.advance(GROUP_WAIT)
    await first.step()
    async with asyncio.timeout(PATIENCE_SECONDS):
        sent = await arrived.get()
    for task in first.sending:
        task.cancel()
    over.set()
    await note(database, an_event())
    await work(second, clock, SEND_LEASE - 2 * SECOND)
    assert receiver.received == []  # the first one may still be sending
    await work(second, clock, Duration(2 * GROUP_INTERVAL), every=Duration(10 * SECOND))
    assert receiver.received[0].id == sent
    assert [notice.content["data"]["count"] for notice in receiver.received] == [1, 1]


async def test_several_gateways_send_each_notice_once(database, clock, new_sender, receiver):
    config = a_config(a_sink(receiver), a_sink(receiver, "target-2"))
    senders = [new_sender(config) for _ in range(3)]
    for number in range(30):
        await note(database, an_event(targets=(TARGET, "target-2"), route=f"route-{number % 5}"))
        await asyncio.gather(*(each.step() for each in senders))
    for _ in range(90):
        clock.advance(10 * SECOND)
        await asyncio.gather(*(each.step() for each in senders))
        await asyncio.gather(*(each.finish() for each in senders))
    ids = [notice.id for notice in receiver.received]
    assert len(ids) == len(set(ids))
    assert told(receiver) == 60


async def test_a_restored_ledger_tells_nothing_until_it_is_resumed(database, clock, sender, receiver):
    await note(database, an_event())
    await database.transact(pause_ledger)
    await work(sender, clock)
    assert receiver.requests == 0
    assert await count_of(database, notice_events) == 0  # but they are grouped, so that they cannot grow
    assert figure(sender, "bridge_notice_events_pending") == 1


# -- targets that come and go ------------------------------------------------------------------------------------


async def test_events_of_a_removed_target_are_dropped_after_a_day_and_counted(database, clock, new_sender, receiver):
    await note(database, an_event(), an_event(targets=("gone",)), an_event(targets=("gone",)))
    sender = new_sender(a_config(a_sink(receiver)))
    await work(sender, clock)
    assert figure(sender, "bridge_notice_events_pending") == 2
    await work(sender, clock, Duration(DAY + 3 * HOUR), every=Duration(30 * MINUTE))
    assert figure(sender, "bridge_notice_events_dropped_total") == 2
    assert await count_of(database, notices) == 0
    assert told(receiver) == 1


async def test_events_are_dropped_after_a_day_if_no_target_is_left_at_all(database, clock, new_sender):
    await note(database, an_event(), an_event(route="other"))
    sender = new_sender(NoticeConfig())
    await work(sender, clock, Duration(DAY + 4 * HOUR), every=Duration(30 * MINUTE))
    assert await count_of(database, notice_events) == 0
    assert await count_of(database, notices) == 0
    assert figure(sender, "bridge_notice_events_dropped_total") == 2


async def test_rows_of_a_newer_version_wait_for_it_and_delay_no_others(database, clock, sender, receiver):
    later = {"at": clock.now(), "text": "Something new.", "severity": "high"}
    event = {"happened_at": clock.now(), "kind": "later", "route": "", "targets": [TARGET], "count": 1, "detail": later}
    group = {"target": TARGET, "kind": "later", "route": "", "due_at": clock.now(), "fencing_token": 0}
    total = {"count": 2, "first_at": clock.now(), "last_at": clock.now(), "severity": "high", "details": [later]}
    sealed = {**group, "kind": "stuck_run", "collected": None, "sealed": {**total, "key": "notice_1"}}

    def insert_rows(connection, _now):
        connection.execute(insert(notice_events), [event, {**event, "kind": "dead_delivery"}])
        connection.execute(insert(notices), [{**group, "collected": total, "sealed": None}, sealed])

    await database.transact(insert_rows)
    await note(database, an_event())
    with structlog.testing.capture_logs() as lines:
        await work(sender, clock)
    assert told(receiver) == 4
    assert [line["events"] for line in lines if line["event"] == "notices_unreadable"] == [3]
    assert figure(sender, "bridge_notice_events_pending") == 3
    assert await count_of(database, notice_events) == 1


async def test_a_target_that_is_put_back_within_a_day_gets_what_waited(database, clock, new_sender, receiver):
    await note(database, an_event())
    await work(new_sender(NoticeConfig()), clock, Duration(12 * HOUR), every=Duration(10 * MINUTE))
    await work(new_sender(a_config(a_sink(receiver))), clock)
    assert told(receiver) == 1


async def test_without_targets_nothing_is_written(database, clock, new_sender):
    sender = new_sender(NoticeConfig())
    written = []
    write, transact = database.write, database.transact

    async def noted(function, *arguments):
        written.append(function)
        return await (write if arguments else transact)(function, *arguments)

    sender.database = type("Noted", (), {"read": database.read, "now": database.now, "write": noted, "transact": noted})
    await work(sender, clock, Duration(2 * HOUR), every=MINUTE)
    assert written == []


async def test_a_clock_that_was_ahead_delays_no_notice_for_long(database, clock, sender, receiver):
    clock.advance(30 * DAY)
    await note(database, an_event())
    await sender.step()
    clock.step(-30 * DAY)
    await work(sender, clock)
    assert told(receiver) == 1


# -- conditions --------------------------------------------------------------------------------------------------


async def open_breaker(database, name, signal=HealthSignal.TRIP):
    await database.write(
        apply_breaker_signals,
        BreakerSignal(breaker=name, signal=signal, reason="No answer.", probe_delay_us=Duration(SECOND)),
    )


@pytest.mark.parametrize(
    ("breaker", "name", "route"),
    [(TESTNOD, "TestNod", None), (storage_breaker("shop"), "TestNod's storage for route shop", "shop")],
)
async def test_an_upstream_that_is_away_for_long_is_told_once_and_so_is_its_return(
    database, clock, new_sender, receiver, breaker, name, route
):
    config = a_config(a_sink(receiver))
    senders = [new_sender(config), new_sender(config)]

    async def pass_time(us):
        for _ in range(us // MINUTE):
            for sender in senders:
                await sender.step()
                await sender.finish()
            clock.advance(MINUTE)

    await open_breaker(database, breaker)
    await pass_time(14 * MINUTE)
    assert receiver.received == []
    await pass_time(2 * HOUR)
    [notice] = receiver.received
    data = notice.content["data"]
    assert (data["event"], data["route"]) == ("upstream_away", route)
    assert f"{name} has been" in data["events"][0]["text"]
    await open_breaker(database, breaker, HealthSignal.SUCCESS)
    await pass_time(2 * MINUTE)
    assert f"{name} is back after 2 hours" in receiver.received[1].content["data"]["events"][0]["text"]
    assert await count_of(database, notice_conditions) == 0
    await pass_time(HOUR)
    assert len(receiver.received) == 2


@pytest.mark.parametrize("unwanted", ["no target", "another kind"])
async def test_an_outage_is_announced_though_the_end_of_the_one_before_was_not(
    database, clock, new_sender, receiver, unwanted
):
    wanted = a_config(a_sink(receiver))
    other = a_config(a_sink(receiver), kinds=frozenset({EventKind.STUCK_RUN}))
    sender = new_sender(wanted)
    await open_breaker(database, TESTNOD)
    await work(sender, clock, 20 * MINUTE, every=MINUTE)
    assert len(receiver.received) == 1

    sender.config = lambda: NoticeConfig() if unwanted == "no target" else other
    await open_breaker(database, TESTNOD, HealthSignal.SUCCESS)
    await work(sender, clock, Duration(2 * HOUR), every=Duration(10 * MINUTE))
    assert await count_of(database, notice_conditions) == 0

    sender.config = lambda: wanted
    await open_breaker(database, TESTNOD)
    await work(sender, clock, 20 * MINUTE, every=MINUTE)
    assert len(receiver.received) == 2
    assert "TestNod has been away for 15 minutes" in receiver.received[1].text


async def test_an_outage_replaces_one_that_ended_while_no_gateway_ran(database, clock, sender, receiver):
    await open_breaker(database, TESTNOD)
    await work(sender, clock, 20 * MINUTE, every=MINUTE)
    clock.advance(30 * DAY)
    await open_breaker(database, TESTNOD, HealthSignal.SUCCESS)
    await open_breaker(database, TESTNOD)
    await work(sender, clock, 20 * MINUTE, every=MINUTE)
    assert len(receiver.received) == 2
    await open_breaker(database, TESTNOD, HealthSignal.SUCCESS)
    await work(sender, clock, 10 * MINUTE, every=MINUTE)
    assert "TestNod is back after 2" in receiver.received[2].text  # minutes
    assert "days" not in receiver.received[2].text


async def test_a_certificate_that_ends_is_told_two_weeks_and_three_days_before_and_at_its_end(
    clock, new_sender, receiver
):
    end = CertificateEnd(ends_at=clock.now() + 30 * DAY, fingerprint="f1", path="tls.pem")
    sender = new_sender(a_config(a_sink(receiver)), certificate=lambda: end)
    days = []
    for day in range(35):
        before = len(receiver.received)
        await work(sender, clock, DAY, every=Duration(8 * HOUR))
        days += [day] * (len(receiver.received) - before)
    assert days == [16, 27, 30]
    texts = [notice.content["data"]["events"][0]["text"] for notice in receiver.received]
    assert "tls.pem) ends at 20" in texts[0]
    assert "has ended" in texts[2]


async def test_an_event_that_waits_is_shown(database, clock):
    await note(database, an_event(count=3))
    pending = await database.read(pending_notices, clock.now())
    assert pending.events == 3
    assert pending.ungrouped
