"""The console over real sockets, before a real ledger: pages, sign-in, roles, actions and the audit log."""

import asyncio
import re
import time
from dataclasses import replace

import pytest

from bridge.domain.junit.cases import PART_CASES
from bridge.domain.routing import Route
from bridge.server.admin.access import COOKIE, AdminAccess
from bridge.server.admin.app import admin_app
from bridge.server.admin.console import pages
from bridge.server.config import ServerConfig
from bridge.server.health import Readiness
from bridge.server.http.requests import read_networks
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.disk import DiskSpool
from bridge.store.engine.sqlite import SqliteDatabase, closing
from bridge.store.ledger import migrate
from bridge.telemetry.metrics import Metrics
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, dead, kept_refusal, report
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
PAGES = ("/", "/builds", "/rejections", "/audit", "/builds?problems=true&branch=main&commit=abc&state=open&route=shop")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def database(tmp_path, clock):
    database = SqliteDatabase(tmp_path / "ledger.db", clock)
    migrate(database.writing)
    with closing(database):
        yield database


@pytest.fixture
def ledger(database):
    return Ledger(database)


@pytest.fixture
def serve(aiohttp_client, database, clock, tmp_path):
    """Start an admin listener with two routes."""
    (tmp_path / "spool").mkdir()
    spool = DiskSpool(tmp_path / "spool")
    readiness = Readiness(database=database, spool=spool, min_free=1, clock=clock)

    async def start(access=OPEN):
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
                access=access,
                routes=(Route(name="shop"), Route(name="bank", paused=True)),
                resender=new_resender(database, spool, ValidationPool(workers=0)),
                codearts=None,
                max_finalize_delay_us=0,
            ),
            archive=None,
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


def test_a_session_ends_after_its_time_and_with_its_tokens(clock):
    now = clock.now()
    cookie = CLOSED.new_session("Ann", "operator", now)
    assert CLOSED.person_of_session(cookie, now).name == "Ann"
    assert CLOSED.person_of_session(cookie, now + 13 * 3600 * 1_000_000) is None
    assert AdminAccess(operator_tokens=("another-token",)).person_of_session(cookie, now) is None
    assert CLOSED.person_of_session(cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), now) is None
    assert CLOSED.person_of_session("", now) is None


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
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert (await act(client, "finalize-build", 1, headers=headers))[0] == 403
        assert (await client.post("/api/v1/builds/1/finalize", headers=headers)).status == 403
    assert (await client.post("/api/v1/builds/1/finalize")).status == 200


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
    status, text, answer = await page(await serve(), "/reports/1?save=true")
    assert status == 200
    assert "attachment" in answer.headers["Content-Disposition"]
    assert "boom" in text
    assert "<style>" in text
    assert "<script" not in text
    assert "/static/" not in text


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
