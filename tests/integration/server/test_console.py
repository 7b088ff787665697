"""The console over real sockets, before a real ledger: pages, sign-in, roles, actions and the audit log."""

import asyncio
import hashlib
import html
import re
import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from multidict import CIMultiDict
from sqlalchemy import select

from bridge.domain import changes
from bridge.domain.build import DeliveryState, DeliveryTarget, UploadMetadata
from bridge.domain.changes import set_build, set_delivery
from bridge.domain.instants import DAY
from bridge.domain.junit.cases import PART_CASES
from bridge.domain.outcomes import BuildInfo, Stored
from bridge.domain.routing import Route
from bridge.domain.text_format import rfc3339
from bridge.errors import Unavailable
from bridge.server.admin import events
from bridge.server.admin.access import AdminAccess
from bridge.server.admin.app import admin_app
from bridge.server.admin.console import pages
from bridge.server.admin.identification import COOKIE, SESSION_US
from bridge.server.config import ServerConfig
from bridge.server.health import Readiness
from bridge.server.http.requests import read_networks
from bridge.server.validation.pool import ValidationPool
from bridge.store import admin_sessions as store
from bridge.store.archive.base import copy_of
from bridge.store.archive.disk import DiskArchive
from bridge.store.archive.s3 import S3Archive
from bridge.store.blobs.disk import DiskSpool
from bridge.store.schema import admin_sessions
from bridge.telemetry.metrics import Metrics
from tests.support.backends import open_bucket
from tests.support.labels import label
from tests.support.ledger import dead, kept_refusal, report, upload
from tests.support.upload_server import new_resender

JOB = "a" * 32
CPU_SECONDS = 20.0  # a comparison of all lines takes ten times as long
OPERATOR, VIEWER = "operator-token-0123456789", "viewer-token-0123456789"
HTML = {"Accept": "text/html"}
OPEN = AdminAccess()
CLOSED = AdminAccess(operator_tokens=(OPERATOR,), viewer_tokens=(VIEWER,))
BEHIND_PROXY = AdminAccess(
    user_header="X-Forwarded-User", user_header_from=read_networks(["127.0.0.0/8"]), operators=("ann",)
)
FILTERS = "problems=true&mirror_differs=true&branch=main&commit=abc&state=open&route=shop"
PAGES = ("/", "/builds", "/rejections", "/audit", f"/builds?{FILTERS}")


@pytest.fixture
def serve(aiohttp_client, database, clock, tmp_path):
    """Start an admin listener with two routes; `access` may be a function that returns what counts now."""
    (tmp_path / "spool").mkdir()
    spool = DiskSpool(tmp_path / "spool")
    readiness = Readiness(database=database, spool=spool, min_free=1, clock=clock)

    async def start(access=OPEN, archive=None, codearts=None):
        app = admin_app(
            database=database,
            readiness=readiness,
            metrics=Metrics(),
            tasks=lambda: (),
            certificate=None,
            config=lambda: ServerConfig(
                upload=None,
                submission=None,
                storage=None,
                build_status=None,
                webhook=None,
                proxy=None,
                trusted_proxies=(),
                access=access() if callable(access) else access,
                routes=(Route(name="shop"), Route(name="bank", paused=True)),
                resender=new_resender(database, spool, ValidationPool(workers=0)),
                codearts=codearts,
                max_finalize_delay_us=0,
            ),
            archive=archive,
            spool=spool,
            host="127.0.0.1",
            clock=clock,
        )
        return await aiohttp_client(app)

    return start


async def page(client, path, **options):
    answer = await client.get(path, headers=HTML, **options)
    return answer.status, await answer.text(), answer


async def give_up(ledger):
    leased = await ledger.claimed()
    (delivery,) = leased.build.deliveries.values()
    await ledger.record(leased.build, dead(delivery))
    await ledger.release(leased, None)


async def csrf_of(client, action, target):
    _, text, _ = await page(client, f"/act?action={action}&target={target}&back=/builds")
    return re.search(r'name="csrf" value="([0-9a-f]{64})"', text)[1]


async def act(client, action, target, *, csrf=None, headers=None):
    form = {"action": action, "target": str(target), "back": "/builds"}
    form["csrf"] = await csrf_of(client, action, target) if csrf is None else csrf
    answer = await client.post("/act", data=form, headers=HTML | (headers or {}))
    return answer.status, await answer.text()


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_answers_on_an_empty_and_on_a_used_ledger_under_a_strict_policy(serve, ledger, path):
    client = await serve()
    for _ in range(2):
        status, text, answer = await page(client, path)
        assert status == 200
        assert "<script>" not in text
        assert "style=" not in text
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
        await ledger.accept(rejections=(kept_refusal("cut.xml", b"<a"),), build_no=7)


async def test_a_build_shows_why_its_reports_its_failures_and_its_rejections(serve, ledger):
    await ledger.accept(report("TEST-a.xml", b"a"), rejections=(kept_refusal("cut.xml", b"<a"),), build_no=7)
    status, text, _ = await page(await serve(), f"/builds/{JOB}/7")
    assert status == 200
    for shown in ("TEST-a.xml", "cut.xml", "<svg", "Finalize now"):
        assert shown in text, shown


@pytest.mark.parametrize(
    ("url", "shown", "link"),
    [
        ("https://nod.test/runs/1?X-Amz-Signature=canary#canary", "https://nod.test/runs/1", True),
        ("https://canary:canary@nod.test/runs/1", "https://nod.test/runs/1", True),
        ("javascript:alert('canary')", "", False),
        ("//canary.test/1", "", False),
        ("", "", False),
    ],
)
async def test_a_runs_page_is_a_link_without_query_and_nothing_else_is_a_link(serve, ledger, url, shown, link):
    """As an earlier version may have written it; what TestNod answers today is in tests/unit/protocols."""
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    leased = await ledger.claimed()
    run = changes.AddRun("run-7", url, opened_at=1, project_id="", generation=1)
    await ledger.run_parameters(leased, "shop")
    await ledger.record(leased.build, run, set_build(stuck_reason="run is pending"))
    client = await serve()
    text = (await page(client, f"/builds/{JOB}/7"))[1]
    (found,) = (await (await client.get("/api/v1/builds")).json())["builds"]
    why = await (await client.get(f"/api/v1/why?job_id={JOB}&build_no=7")).json()
    assert found["testnod"]["runs"][0]["test_run_url"] == shown
    assert "canary" not in text + str(found) + str(why)
    assert shown in why["status"]
    assert (f'<a href="{shown}" rel="noreferrer">run-7</a>' in text) is link
    assert "run-7" in text


async def test_a_build_that_never_came_is_explained_as_a_page(serve):
    status, text, _ = await page(await serve(), f"/builds/{JOB}/99")
    assert status == 404
    assert "build 99 of job" in text.casefold()


async def test_errors_are_pages_for_browsers_and_json_for_others(serve):
    client = await serve()
    status, text, answer = await page(client, "/builds/x y/1")
    assert (status, answer.content_type) == (400, "text/html")
    assert "job_id" in text
    assert (await client.get("/nothing")).content_type == "application/json"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (
            b'<testsuite><testcase name="AT&amp;T"><failure message="boom">#x1B[31mred#x1B[0m</failure></testcase>%s'
            % b"<testcase name='ok'/></testsuite>",
            ("AT&amp;T", "boom", '<span class="c1">red</span>', "1 failing case", "1 other case"),
        ),
        (b"<testsuite><testcase name='&lt;script&gt;alert(1)'/></testsuite>", ("&lt;script&gt;alert(1)",)),
    ],
)
async def test_a_report_shows_failing_cases_first_with_colors_and_escapes_everything(serve, ledger, body, shown):
    await ledger.accept(report("TEST-a.xml", body))
    status, text, _ = await page(await serve(), "/reports/1")
    assert status == 200
    for part in shown:
        assert part in text, part
    assert "<script>alert" not in text


async def test_a_large_report_is_shown_in_parts_and_can_be_searched(serve, ledger):
    cases = b"".join(b'<testcase name="case %d" classname="c"/>' % number for number in range(PART_CASES + 1))
    await ledger.accept(report("TEST-a.xml", b"<testsuite>" + cases + b"</testsuite>"))
    client = await serve()
    first, second = (await page(client, "/reports/1"))[1], (await page(client, "/reports/1?part=2"))[1]
    assert f"case {PART_CASES}<" not in first
    assert f"case {PART_CASES}<" in second
    found = (await page(client, "/reports/1?q=CASE%20499"))[1]
    assert "1 other case" in found
    assert "case 499<" in found


async def test_a_report_whose_file_is_gone_says_so(serve, ledger, database):
    await ledger.accept(report("TEST-a.xml", b"<testsuite/>"))
    await database.transact(lambda connection, _now: connection.exec_driver_sql("UPDATE reports SET body = NULL"))
    status, text, _ = await page(await serve(), "/reports/1")
    assert status == 200
    assert "no longer kept here" in text


# -- who may ------------------------------------------------------------------------------------------------------


async def test_without_a_session_a_browser_is_asked_to_sign_in_and_then_goes_where_it_wanted(serve):
    client = await serve(CLOSED)
    answer = await client.get("/builds?state=open", headers=HTML, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/sign-in?next=%2Fbuilds%3Fstate%3Dopen")
    wrong = await client.post("/sign-in", data={"token": "wrong", "next": "/builds"}, headers=HTML)
    assert (wrong.status, "not a token" in await wrong.text()) == (403, True)
    form = {"token": OPERATOR, "next": "/builds?state=open", "name": "Ann"}
    entered = await client.post("/sign-in", data=form, headers=HTML, allow_redirects=False)
    assert (entered.status, entered.headers["Location"]) == (303, "/builds?state=open")
    cookie = entered.cookies[COOKIE]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert OPERATOR not in cookie.value
    assert "Ann (operator)" in (await page(client, "/"))[1]
    await client.post("/sign-out", headers=HTML, allow_redirects=False)
    assert (await client.get("/", headers=HTML, allow_redirects=False)).status == 303


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
async def test_sign_in_never_leads_to_another_site(serve, target):
    client = await serve(CLOSED)
    entered = await client.post("/sign-in", data={"token": OPERATOR, "next": target}, allow_redirects=False)
    assert entered.headers["Location"] == "/"


async def sign_in(client, token=OPERATOR, *, name="Ann", headers=None):
    """Begin a session; return its cookie."""
    form = {"token": token, "name": name}
    answer = await client.post("/sign-in", data=form, headers=HTML | (headers or {}), allow_redirects=False)
    assert answer.status == 303
    return answer.cookies[COOKIE]


async def status_of(client, cookie, path="/api/v1/builds", method="GET", **headers):
    """Ask with a cookie alone, whatever cookies the client has."""
    client.session.cookie_jar.clear()
    return (await client.request(method, path, headers={"Cookie": f"{COOKIE}={cookie}", **headers})).status


async def test_a_session_ends_after_its_time_and_with_its_tokens(serve, clock):
    rules = [CLOSED]
    client = await serve(lambda: rules[0])
    cookie = (await sign_in(client)).value
    assert await status_of(client, cookie) == 200
    rules[0] = AdminAccess(operator_tokens=("another-token",), viewer_tokens=(VIEWER,))
    assert await status_of(client, cookie) == 401
    rules[0] = AdminAccess(operator_tokens=("another-token", OPERATOR))
    assert await status_of(client, cookie) == 200
    clock.advance(SESSION_US - 1)
    assert await status_of(client, cookie) == 200
    clock.advance(1)
    assert await status_of(client, cookie) == 401


async def test_a_session_that_was_signed_out_is_over_everywhere_also_for_a_copy_of_its_cookie(serve):
    client, replica = await serve(CLOSED), await serve(CLOSED)
    for token in (OPERATOR, VIEWER):
        cookie = (await sign_in(client, token)).value
        assert await status_of(replica, cookie) == 200
        assert await status_of(replica, cookie, "/sign-out", "POST") == 200  # it leads to the sign-in
        assert await status_of(client, cookie) == 401


async def test_a_cookie_holds_nothing_to_guess_the_token_from_and_neither_does_the_ledger(serve, ledger):
    """Whatever of its own the person or the gateway puts into it could be tried with each guess."""
    client = await serve(CLOSED)
    first, second = (await sign_in(client)).value, (await sign_in(client)).value
    assert first != second
    assert re.fullmatch(r"[\w-]{43}", first)
    (row,) = await ledger.rows(select(admin_sessions))  # the second replaced the first
    assert second.encode() not in row.session_key + row.token_proof
    assert row.token_proof != hashlib.sha256(OPERATOR.encode()).digest()
    (csrf,) = {await csrf_of(client, "pause-route", "shop") for _ in range(2)}
    await sign_in(client)
    assert csrf != await csrf_of(client, "pause-route", "shop")


async def test_sessions_are_bounded_and_viewers_end_none_of_operators(serve, ledger, monkeypatch, clock):
    monkeypatch.setattr(store, "MAX_SESSIONS", 3)
    client = await serve(CLOSED)
    operator = (await sign_in(client)).value
    client.session.cookie_jar.clear()
    cookies = []
    for _ in range(5):
        clock.advance(1)
        cookies.append((await sign_in(client, VIEWER)).value)
        client.session.cookie_jar.clear()
    assert len(await ledger.rows(select(admin_sessions))) == 4
    assert await status_of(client, operator) == 200
    assert [await status_of(client, cookie) for cookie in cookies] == [401, 401, 200, 200, 200]


@pytest.mark.parametrize(
    ("proxies", "scheme", "is_secure"),
    [
        (["127.0.0.0/8"], "https", True),
        (["127.0.0.0/8"], "HTTPS, http", True),
        (["127.0.0.0/8"], "http", False),
        (["127.0.0.0/8"], "http, https", False),
        (["127.0.0.0/8"], "", False),
        (["10.0.0.0/8"], "https", False),
        ([], "https", False),
    ],
)
async def test_a_cookie_is_for_tls_only_if_the_browser_came_by_it(serve, proxies, scheme, is_secure):
    client = await serve(replace(CLOSED, proxies=read_networks(proxies)))
    cookie = await sign_in(client, headers={"X-Forwarded-Proto": scheme})
    assert bool(cookie["secure"]) is is_secure


async def test_a_cookie_is_for_tls_only_if_the_listener_speaks_it(serve, monkeypatch):
    monkeypatch.setattr(web.BaseRequest, "secure", property(lambda _: True))
    assert (await sign_in(await serve(CLOSED)))["secure"]


@pytest.mark.parametrize("ends", ["signed out", "token removed"])
async def test_events_end_with_the_session(serve, monkeypatch, ends):
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.05)
    rules = [CLOSED]
    client = await serve(lambda: rules[0])
    await sign_in(client)
    stream = await client.get(events.EVENTS_PATH)
    still = b": still here"
    for _ in range(3):  # it goes on while the session does
        while not (await stream.content.readline()).startswith(still):
            assert not stream.content.at_eof()
    if ends == "signed out":
        await client.post("/sign-out", headers=HTML, allow_redirects=False)
    else:
        rules[0] = AdminAccess(operator_tokens=("another-token",))
    await stream.content.read()  # to its end


async def test_the_ledger_need_not_be_read_for_a_token(serve, database):
    client = await serve(CLOSED)
    cookie = (await sign_in(client)).value
    with database.writing.begin() as connection:
        connection.exec_driver_sql("DROP TABLE admin_sessions")
    assert await status_of(client, cookie, "/api/v1/routes") == 503
    assert await status_of(client, cookie, "/api/v1/routes", **{"X-Auth-Token": OPERATOR}) == 200


async def test_a_viewer_looks_and_cannot_act(serve, ledger):
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    client = await serve(CLOSED)
    await client.post("/sign-in", data={"token": VIEWER}, headers=HTML)
    status, text, _ = await page(client, f"/builds/{JOB}/7")
    assert (status, "Finalize now" in text) == (200, False)
    status, text = await act(client, "finalize-build", 1)
    assert (status, "may look, but not act" in text) == (403, True)
    token = {"X-Auth-Token": VIEWER}
    assert (await client.get("/api/v1/builds", headers=token)).status == 200
    assert (await client.post("/api/v1/builds/1/finalize", headers=token)).status == 403


async def test_a_proxy_names_people_from_its_addresses_only(serve):
    client = await serve(BEHIND_PROXY)
    assert "ann (operator)" in (await (await client.get("/", headers=HTML | {"X-Forwarded-User": "ann"})).text())
    assert "bob (viewer)" in (await (await client.get("/", headers=HTML | {"X-Forwarded-User": "bob"})).text())
    assert (await client.get("/api/v1/builds")).status == 401
    elsewhere = AdminAccess(user_header="X-Forwarded-User", user_header_from=read_networks(["10.0.0.0/8"]))
    stranger = await serve(elsewhere)
    assert (await stranger.get("/api/v1/builds", headers={"X-Forwarded-User": "ann"})).status == 401


async def test_pages_of_other_sites_cannot_act(serve, ledger):
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    client = await serve()
    assert (await act(client, "finalize-build", 1, csrf=""))[0] == 403
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[evil"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert (await act(client, "finalize-build", 1, headers=headers))[0] == 403
        assert (await client.post("/api/v1/builds/1/finalize", headers=headers)).status == 403
    assert (await client.post("/api/v1/builds/1/finalize")).status == 200


@pytest.mark.parametrize(
    "lines", [["ann", "bob"], ["bob", "ann"], ["ann", "ann"], ["ann", ""], ["an\u202en"]], ids=ascii
)
async def test_a_proxy_that_sends_several_names_or_unprintable_ones_identifies_no_person(serve, lines):
    client = await serve(replace(BEHIND_PROXY, operator_tokens=(OPERATOR,)))
    headers = CIMultiDict([("X-Forwarded-User", line) for line in lines])
    for path in ("/api/v1/builds", "/api/v1/audit"):
        answer = await client.get(path, headers=headers)
        assert (answer.status, "X-Forwarded-User" in await answer.text()) == (401, True)
    headers.add("X-Auth-Token", OPERATOR)
    assert (await client.post("/api/v1/routes/shop/pause", headers=headers)).status == 401


async def test_the_audit_log_says_how_each_name_was_proven(serve):
    either = replace(BEHIND_PROXY, operator_tokens=(OPERATOR,))
    client, local = await serve(either), await serve()
    await sign_in(client, name="ann")
    assert (await act(client, "pause-route", "shop"))[0] == 200
    client.session.cookie_jar.clear()
    token = {"X-Auth-Token": OPERATOR}
    assert (await client.post("/api/v1/routes/shop/resume", headers=token)).status == 200
    named = {"X-Forwarded-User": "ann"}
    answer = await client.get("/act?action=pause-route&target=shop", headers=HTML | named)
    csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', await answer.text())[1]
    assert (await act(client, "pause-route", "shop", csrf=csrf, headers=named))[0] == 200
    assert (await local.post("/api/v1/routes/shop/resume")).status == 200
    entries = (await (await local.get("/api/v1/audit")).json())["audit"]
    assert [(entry["person"], entry["proof"]) for entry in reversed(entries)] == [
        ("ann", "sign-in with admin.token, name as typed"),
        ("operator", "admin.token"),
        ("ann", "X-Forwarded-User from 127.0.0.1"),
        ("local", "this machine, without identification"),
    ]
    text = (await page(local, "/audit"))[1]
    assert all(entry["proof"] in text for entry in entries)


async def test_forms_of_people_behind_a_proxy_are_good_at_every_replica_and_for_themselves_alone(serve):
    client, replica = await serve(BEHIND_PROXY), await serve(replace(BEHIND_PROXY, operators=("*",)))
    named, other = {"X-Forwarded-User": "ann"}, {"X-Forwarded-User": "bob"}
    answer = await client.get("/act?action=pause-route&target=shop", headers=HTML | named)
    csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', await answer.text())[1]
    for csrf_sent, headers, status in ((csrf, other, 403), ("", named, 403), (csrf, named, 200)):
        assert (await act(replica, "pause-route", "shop", csrf=csrf_sent, headers=headers))[0] == status


# -- actions ------------------------------------------------------------------------------------------------------


async def test_a_dead_report_is_sent_again_and_the_audit_log_says_who_did_it(serve, ledger):
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    await give_up(ledger)
    client = await serve(CLOSED)
    await client.post("/sign-in", data={"token": OPERATOR, "name": "Ann"}, headers=HTML)
    assert "Send again" in (await page(client, f"/builds/{JOB}/7"))[1]
    status, text = await act(client, "retry-delivery", 1)
    assert (status, "1 report is sent again." in text) == (200, True)
    (found,) = (await (await client.get("/api/v1/builds")).json())["builds"]
    assert found["reports"][0]["deliveries"][0]["state"] == "pending"
    (entry,) = (await (await client.get("/api/v1/audit")).json())["audit"]
    assert (entry["person"], entry["role"], entry["action"], entry["target"]) == (
        "Ann",
        "operator",
        "retry",
        "delivery 1",
    )
    assert "delivery 1" in (await page(client, "/audit"))[1]


async def test_a_dead_report_without_bytes_is_not_sent_and_the_answer_says_what_to_do(serve, ledger, database):
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    await give_up(ledger)
    await database.transact(lambda connection, _now: connection.exec_driver_sql("UPDATE reports SET body = NULL"))
    answer = await (await (await serve()).post("/api/v1/builds/1/retry")).json()
    assert answer["result"] == "0 reports are sent again. 1 report has no bytes any more. Upload them again from CI."


async def test_reports_with_bytes_are_sent_again_beside_those_without(serve, ledger, database):
    await ledger.accept(report("TEST-a.xml", b"a"), report("TEST-b.xml", b"b"), build_no=7)
    leased = await ledger.claimed()
    await ledger.record(leased.build, *map(dead, leased.build.deliveries.values()))
    await ledger.release(leased, None)
    gone = "UPDATE reports SET body = NULL WHERE id = 1"
    await database.transact(lambda connection, _now: connection.exec_driver_sql(gone))
    client = await serve()
    done = (await (await client.post("/api/v1/builds/1/retry")).json())["result"]
    assert done == "1 report is sent again. 1 report has no bytes any more. Upload them again from CI."
    (entry,) = (await (await client.get("/api/v1/audit")).json())["audit"]
    assert entry["detail"] == "1 report"


async def test_finalize_ends_an_open_build_once(serve, ledger):
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    client = await serve()
    assert "ended now" in (await (await client.post("/api/v1/builds/1/finalize")).json())["result"]
    assert (await client.post("/api/v1/builds/9/finalize")).status == 404
    assert (await client.post("/api/v1/deliveries/9/retry")).status == 404


async def test_a_route_is_paused_and_resumed_and_both_are_shown(serve):
    client = await serve()
    assert "is paused" in (await (await client.post("/api/v1/routes/shop/pause")).json())["result"]
    assert "was already paused" in (await (await client.post("/api/v1/routes/shop/pause")).json())["result"]
    shop, bank = (await (await client.get("/api/v1/routes")).json())["routes"]
    assert (shop["paused"], shop["paused_since"] is not None, bank["paused"], bank["paused_since"]) == (
        True,
        True,
        True,
        None,
    )
    assert "local paused route" in (await page(client, "/"))[1]
    assert "POST /api/v1/routes/shop/resume" in shop["paused_reason"]
    assert "is resumed" in (await (await client.post("/api/v1/routes/shop/resume")).json())["result"]
    for action in ("pause", "resume", "retry"):
        assert (await client.post(f"/api/v1/routes/none/{action}")).status == 404


async def test_a_rejected_file_is_shown_with_its_faulty_line_and_its_repair(serve, ledger):
    body = b'<testsuite>\n<testcase name="a&b"/>\n</testsuite>'
    refused = replace(kept_refusal("amp.xml", body), reason="amp.xml: line 2, column 20: a bare &.")
    await ledger.accept(rejections=(refused,))
    status, text, _ = await page(await serve(), "/rejections/1")
    assert status == 200
    assert '<span class="fault">     2  &lt;testcase' in text
    assert "a&amp;amp;b" in text
    assert "Send repaired" in text


async def test_a_report_is_saved_as_one_file_that_needs_nothing_else(serve, ledger):
    body = b'<testsuite><testcase name="x"><failure message="boom"/></testcase></testsuite>'
    await ledger.accept(report("TEST-a.xml", body))
    client = await serve()
    status, text, answer = await page(client, "/reports/1?save=true")
    assert status == 200
    (entry,) = (await (await client.get("/api/v1/audit")).json())["audit"]
    assert (entry["action"], entry["target"]) == ("download", "report 1")
    assert "attachment" in answer.headers["Content-Disposition"]
    assert "boom" in text
    assert "<style>" in text
    assert "<script" not in text
    assert "/static/" not in text


async def test_a_download_of_a_rejected_file_is_in_the_audit_log(serve, ledger):
    await ledger.accept(rejections=(kept_refusal("cut.xml", b"<a"),))
    client = await serve()
    assert await (await client.get("/api/v1/rejections/1/file")).read() == b"<a"
    (entry,) = (await (await client.get("/api/v1/audit")).json())["audit"]
    assert (entry["action"], entry["target"]) == ("download", "rejection 1")


async def test_a_rejected_file_of_many_lines_is_not_compared_at_length(serve, ledger):
    lines = b"".join(b"%c\n" % (33 + number % 27) for number in range(100_000))
    body = b"<testsuite><testcase name='a'><system-out>\x01" + lines.replace(b"&", b"").replace(b"<", b"") + b"\x01"
    await ledger.accept(rejections=(kept_refusal("many.xml", body + b"</system-out></testcase></testsuite>"),))
    began = time.process_time()
    status, text, _ = await page(await serve(), "/rejections/1")
    assert status == 200
    assert len(text) < 200_000
    assert time.process_time() - began < CPU_SECONDS


async def test_a_report_page_is_bounded_whatever_the_report_holds(serve, ledger):
    long = b"'" * 60_000
    failing = b'<testcase name="%s"><failure message="%s">%s</failure></testcase>' % (long, long, b"[1mx" * 10_000)
    many = b"<testcase name='m'>" + b"<skipped/>" * 50_000 + b"</testcase>"
    await ledger.accept(report("TEST-a.xml", b"<testsuite>" + failing * 100 + many + b"</testsuite>"))
    status, text, _ = await page(await serve(), "/reports/1")
    assert status == 200
    assert len(text) < 16 * 1024 * 1024


async def test_no_page_of_another_site_can_embed_a_page_but_its_links_are_followed(serve):
    client = await serve()
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert (await client.get("/rejections", headers=HTML | embedded)).status == 403
    assert (await client.get("/rejections", headers=HTML | embedded | {"Sec-Fetch-Mode": "navigate"})).status == 200


async def test_a_session_cookie_of_other_bytes_is_no_session(serve):
    client = await serve(CLOSED)
    answer = await client.get("/api/v1/builds", headers={"Cookie": f"{COOKIE}=a.viewer.\udcff.b.c"})
    assert answer.status == 401


@pytest.mark.parametrize("path", ["/reports/1", "/reports/1?save=true"])
async def test_pages_that_read_whole_files_are_made_a_few_at_a_time(serve, ledger, monkeypatch, path):
    running, most = 0, 0

    async def read_slowly(_pages, source):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(50):
            await asyncio.sleep(0)
        running -= 1
        yield source.body

    monkeypatch.setattr(pages.ConsolePages, "_bytes_of", read_slowly)
    await ledger.accept(report("TEST-a.xml", b"<testsuite><testcase name='a'/></testsuite>"))
    client = await serve()
    answers = await asyncio.gather(*(page(client, path) for _ in range(pages.MAX_COSTLY_PAGES * 3)))
    assert most <= pages.MAX_COSTLY_PAGES
    assert {status for status, _, _ in answers} == {200, 503}


# -- forget a build -------------------------------------------------------------------------------------------------


async def test_a_build_is_forgotten_after_a_question_that_names_what_is_lost(serve, ledger, tmp_path):
    writer = await DiskSpool(tmp_path / "spool").create()
    await writer.write(b"<testsuite/>")
    key = await writer.commit(label(b"<testsuite/>"))
    large = replace(report("large.xml"), body=None, blob=key)
    await ledger.accept(report("TEST-a.xml", b"a"), large, rejections=(kept_refusal("cut.xml", b"<a"),), build_no=7)
    client = await serve(CLOSED)
    await client.post("/sign-in", data={"token": OPERATOR, "name": "Ann"}, headers=HTML)
    assert "forget-build" in (await page(client, f"/builds/{JOB}/7"))[1]
    _, question, _ = await page(client, "/act?action=forget-build&target=1&back=/builds")
    assert f"Build {JOB}/7: 2 reports and 1 rejection. 2 reports have not been delivered." in question
    assert (await act(client, "forget-build", 1, csrf="0" * 64))[0] == 403
    status, text = await act(client, "forget-build", 1)
    assert (status, "2 reports had not been delivered." in text) == (200, True)
    assert not (tmp_path / "spool" / key).exists()
    assert (await page(client, f"/builds/{JOB}/7"))[0] == 404
    assert (await page(client, "/rejections/1"))[0] == 404
    (entry,) = (await (await client.get("/api/v1/audit")).json())["audit"]
    assert (entry["person"], entry["action"], entry["target"]) == ("Ann", "forget", f"build {JOB}/7")
    assert (await act(client, "forget-build", 1, csrf=await csrf_of(client, "retry-build", 1)))[0] == 404
    assert (await page(client, "/act?action=forget-build&target=x&back=/"))[0] == 404


async def test_the_api_forgets_a_build_for_operators_only(serve, ledger):
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    client = await serve(CLOSED)
    assert (await client.post("/api/v1/builds/1/forget", headers={"X-Auth-Token": VIEWER})).status == 403
    done = await client.post("/api/v1/builds/1/forget", headers={"X-Auth-Token": OPERATOR})
    assert (await done.json())["result"] == f"Forgotten. Build {JOB}/7: 1 report. 1 report had not been delivered."
    assert (await client.post("/api/v1/builds/1/forget", headers={"X-Auth-Token": OPERATOR})).status == 404


async def test_the_api_forgets_the_name_of_a_caller(serve, ledger):
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    client = await serve(CLOSED)
    assert (await client.post("/api/v1/callers/ci/forget", headers={"X-Auth-Token": VIEWER})).status == 403
    done = await client.post("/api/v1/callers/ci/forget", headers={"X-Auth-Token": OPERATOR})
    assert (await done.json())["result"] == 'Forgotten. 1 row has "forgotten" in place of the name.'
    shown = await (await client.get("/api/v1/builds/1", headers={"X-Auth-Token": VIEWER})).json()
    assert shown["reports"][0]["caller"] == "forgotten"
    (entry,) = (await (await client.get("/api/v1/audit", headers={"X-Auth-Token": VIEWER})).json())["audit"]
    assert (entry["action"], entry["target"], entry["detail"]) == ("forget", "a caller", "1 row")
    assert (await client.post("/api/v1/callers/ci/forget", headers={"X-Auth-Token": OPERATOR})).status == 404
    assert (await client.post("/api/v1/callers/forgotten/forget", headers={"X-Auth-Token": OPERATOR})).status == 400


async def test_the_api_forgets_the_rejections_of_builds_that_have_no_row(serve, ledger, tmp_path):
    writer = await DiskSpool(tmp_path / "spool").create()
    await writer.write(b"<a")
    key = await writer.commit(label(b"<a"))
    other, blob = kept_refusal("a.xml", b"<b"), kept_refusal("b.xml", b"<a", body=None, blob=key)
    await ledger.accept(rejections=(other,), build_no=7)
    await ledger.accept(rejections=(blob,), build_no=8)
    await ledger.accept(rejections=(other,), build_no=8, job_id="b" * 32)
    client = await serve(CLOSED)
    path = f"/api/v1/rejections/forget?job_id={JOB}"
    assert (await client.post(path, headers={"X-Auth-Token": VIEWER})).status == 403
    operator = {"X-Auth-Token": OPERATOR}
    for wrong in ("/api/v1/rejections/forget", f"{path}&build_no="):
        assert (await client.post(wrong, headers=operator)).status == 400
    done = await client.post(f"{path}&build_no=7", headers=operator)
    assert await done.json() == {"result": "Forgotten: 1 rejection.", "rejections": 1}
    assert (tmp_path / "spool" / key).exists()
    assert (await (await client.post(path, headers=operator)).json())["rejections"] == 1
    assert not (tmp_path / "spool" / key).exists()
    assert (await (await client.post(path, headers=operator)).json())["rejections"] == 0
    left = (await (await client.get("/api/v1/rejections", headers=operator)).json())["rejections"]
    assert [each["job_id"] for each in left] == ["b" * 32]
    audit = (await (await client.get("/api/v1/audit", headers=operator)).json())["audit"]
    assert [(entry["action"], entry["target"], entry["detail"]) for entry in audit] == [
        ("forget", f"rejections of job {JOB}", "1 rejection"),
        ("forget", f"rejections of build {JOB}/7", "1 rejection"),
    ]


async def test_a_build_in_delivery_is_not_forgotten(serve, ledger):
    await ledger.accept(report("TEST-a.xml", b"a"), build_no=7)
    await ledger.claimed()
    client = await serve()
    answer = await client.post("/api/v1/builds/1/forget")
    assert answer.status == 503
    assert "working on build" in (await answer.json())["error_msg"]
    assert (await client.get("/api/v1/builds/1")).status == 200


# -- copies in the archive ------------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "s3"])
async def archive(request, tmp_path):
    """Both archives."""
    if request.param == "s3":
        async with open_bucket(request.getfixturevalue("weed")) as bucket:
            yield S3Archive(bucket)
        return
    (tmp_path / "archive").mkdir()
    yield DiskArchive(tmp_path / "archive", min_free=1)


async def in_archive(ledger, archive, body):
    """Let a report be delivered, copied and freed; return its entry in the archive."""
    targets = (DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE)
    await ledger.accept_together(upload(report("TEST-a.xml", body), targets=targets, build_no=7))
    leased = await ledger.claimed()
    done = {"state": DeliveryState.DELIVERED, "delivered_at": leased.now}
    await ledger.record(leased.build, *(set_delivery(each, **done) for each in leased.build.deliveries.values()))
    await ledger.release(leased, None)
    entry = (await ledger.database.read(copy_of, 1)).entry

    async def pieces():
        yield body

    assert await archive.keep(entry, pieces) == Stored()
    await ledger.database.transact(
        lambda connection, _now: connection.exec_driver_sql("UPDATE reports SET body = NULL")
    )
    return entry


async def test_a_delivered_report_is_read_from_the_archive(serve, ledger, archive):
    body = b'<testsuite><testcase name="x"><failure message="boom"/></testcase></testsuite>'
    await in_archive(ledger, archive, body)
    client = await serve(archive=archive)
    status, text, _ = await page(client, "/reports/1")
    assert (status, "boom" in text) == (200, True)
    status, text, answer = await page(client, "/reports/1?save=true")
    assert (status, "boom" in text, "attachment" in answer.headers["Content-Disposition"]) == (200, True, True)


async def test_a_copy_that_is_gone_is_explained(serve, ledger, archive):
    entry = await in_archive(ledger, archive, b"<testsuite/>")
    await archive.delete([entry.key])
    status, text, _ = await page(await serve(archive=archive), "/reports/1")
    assert (status, "no longer in the archive" in text) == (200, True)


async def test_a_forgotten_build_has_no_copies_either(serve, ledger, archive):
    entry = await in_archive(ledger, archive, b"<testsuite/>")
    answer = await (await serve(archive=archive)).post("/api/v1/builds/1/forget")
    assert (await answer.json())["result"] == f"Forgotten. Build {JOB}/7: 1 report."
    assert await archive.find_copy(entry.key, disposition="") is None


class DeadArchive:
    """Fails each call, as an archive that is away."""

    async def delete(self, _keys):
        raise Unavailable("away")


async def test_bytes_that_cannot_be_deleted_now_are_named(serve, ledger, archive):
    await in_archive(ledger, archive, b"<testsuite/>")
    answer = await (await serve(archive=DeadArchive())).post("/api/v1/builds/1/forget")
    assert "could not be deleted now" in (await answer.json())["result"]
    assert (await (await serve()).get("/api/v1/builds/1")).status == 404


# -- a person who meets the console for the first time -------------------------------------------------------------


class CodeArtsThatAnswers:
    """Says that every build has ended."""

    async def build_info(self, _job_id, _build_no):
        return BuildInfo(building=False, result="SUCCESS", region=None)


async def test_a_search_for_a_build_that_never_came_leads_to_the_reason(serve):
    client = await serve(codearts=CodeArtsThatAnswers())
    _, text, _ = await page(client, f"/builds?job_id={JOB}&build_no=99")
    assert f'<a href="/builds/{JOB}/99">Why is it not here?</a>' in text
    _, text, _ = await page(client, f"/builds/{JOB}/99")
    assert "CodeArts was not asked" in text
    assert f'href="/builds/{JOB}/99?codearts=true"' in text
    _, text, _ = await page(client, f"/builds/{JOB}/99?codearts=true")
    assert "CodeArts was not asked" not in text
    assert "data-live" not in text  # else the answer would be replaced


async def test_the_page_of_a_build_leads_to_its_rejected_file(serve, ledger):
    await ledger.accept(rejections=(kept_refusal("cut.xml", b"<a"),), build_no=7)
    _, text, _ = await page(await serve(), f"/builds/{JOB}/7")
    assert 'href="/rejections/1">Look at it, or send it after all</a>' in text


async def test_a_job_has_its_name_where_it_is_known(serve, ledger):
    await ledger.accept(report("a.xml"), build_no=7, upload_metadata=UploadMetadata(job_name="shop nightly"))
    client = await serve()
    for path in ("/builds", f"/builds/{JOB}/7"):
        assert "shop nightly" in (await page(client, path))[1]


async def test_an_older_page_of_builds_stays_that_page_when_it_is_refreshed(serve, ledger, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_BUILDS", 1)
    for number in (1, 2):
        await ledger.accept(report("a.xml"), build_no=number)
    client = await serve()
    _, text, _ = await page(client, "/builds?state=open")
    older = html.unescape(re.search(r'rel="next" href="(/builds[^"]+)"', text)[1])
    _, text, _ = await page(client, older)
    refreshed = html.unescape(re.search(r'hx-get="(/builds[^"]+)"', text)[1])
    assert parse_qs(urlsplit(refreshed).query) == {"state": ["open"], "after": ["2"]}
    assert f"/builds/{JOB}/1" in (await page(client, refreshed))[1]


async def test_builds_whose_mirror_does_not_agree_are_marked_and_found(serve, ledger):
    for number, mirror in ((1, "agrees"), (2, "differs: CodeArts counts <0> tests")):
        await ledger.accept(report("a.xml"), build_no=number)
        leased = await ledger.claimed()
        await ledger.record(leased.build, set_build(mirror=mirror))
    client = await serve()
    row, mark = f'<tr><td><a href="/builds/{JOB}/', 'title="differs: CodeArts counts &lt;0&gt; tests">mirror</span>'
    _, text, _ = await page(client, "/builds")
    assert (text.count(row), text.count(mark), text.count("mirror</span>")) == (2, 1, 1)
    _, text, _ = await page(client, "/builds?mirror_differs=true")
    assert (text.count(row), text.count(mark)) == (1, 1)
    assert '<option value="true" selected>does not agree</option>' in text


async def test_lists_begin_with_a_day(serve, ledger, clock):
    client = await serve()
    for number in (1, 2):
        await ledger.accept(report("a.xml"), rejections=(kept_refusal(f"{number}.xml", b"<a"),), build_no=number)
        await client.post(f"/api/v1/builds/{number}/finalize")
        clock.advance(DAY)
    first, second = (rfc3339(clock.now() - days * DAY)[:10] for days in (2, 1))
    for path, name in (("audit", "target"), ("builds", "build_no"), ("rejections", "name")):
        both = (await (await client.get(f"/api/v1/{path}?until={second}")).json())[path]
        (one,) = (await (await client.get(f"/api/v1/{path}?until={first}")).json())[path]
        assert [entry[name] for entry in both][1] == one[name]
        assert (await client.get(f"/api/v1/{path}?until=yesterday")).status == 400
        status, text, _ = await page(client, f"/{path}?until={first}")
        assert (status, f'value="{first}"' in text) == (200, True)
