"""What a report states beside its passed cases, from the upload to its answer and the admin API."""

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from bridge.server.http.requests import UPLOAD_PATH
from tests.support.whole import JOB, build_of, running_gateway

DB = b"""<testsuites><testsuite name="db" tests="1" errors="1"><testcase classname="db.Pool" name="opens"/>
<error message="afterAll: cannot drop the schema">trace</error></testsuite></testsuites>"""
CART = b"""<testsuite name="cart"><testcase classname="cart_test" name="adds"><failure message="assert 1 == 2">
tests/cart_test.py:12: AssertionError</failure></testcase>
<testcase classname="cart_test" name="pays"><flakyFailure message="timeout"/></testcase>
<testcase classname="cart_test" name="DISABLED_ships" status="notrun"/></testsuite>"""
NEVER_RAN = b'<testsuite name="ui" tests="0" errors="1"><error message="import failed"/></testsuite>'
STRIP = 'strip = ["system-out"]\n'
MARKUP = b"""<testsuite name="writer" failures="0"><testcase classname="w" name="writes"/><system-out>
<testcase name="q"><failure message="wanted"/></testcase></system-out></testsuite>"""


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


async def send(running, *bodies, build_no=1):
    form = aiohttp.FormData()
    for number, body in enumerate(bodies):
        form.add_field("files", body, filename=f"{number}.xml")
    url = f"{running.server_url}{UPLOAD_PATH}?job_id={JOB}&build_no={build_no}"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        return (await answer.json())["result"]


async def test_answer_and_api_show_what_the_suites_report_and_what_failed_first(tmp_path, sandbox):
    async with running_gateway(tmp_path, sandbox, poll_after="1h") as running:
        result = await send(running, DB, CART, NEVER_RAN)
        build = await build_of(running)
        again = await send(running, DB)
    assert result == (
        "3 reports, 4 tests, 1 failed; 2 suites report errors outside any test; "
        "failed: suite db: afterAll: cannot drop the schema | cart_test adds (tests/cart_test.py:12): assert 1 == 2 | "
        "suite ui: import failed; flaky: cart_test pays"
    )
    assert again.startswith("1 report, 1 test, 0 failed; 1 already known; 1 suite reports errors outside any test; ")
    reports = sorted(build["reports"], key=lambda report: report["name"])
    counts = [[report[name] for name in ("tests", "suite_errors", "flaky", "disabled")] for report in reports]
    assert counts == [[1, 1, 0, 0], [3, 0, 1, 1], [0, 1, 0, 0]]
    db, cart, never_ran = reports
    assert db["notes"] == ['1 suite reports errors outside any test: "db": afterAll: cannot drop the schema']
    assert never_ran["notes"][1:] == ["it contains no test"]
    assert cart["first_failures"] == [
        {
            "name": "adds",
            "classname": "cart_test",
            "message": "assert 1 == 2",
            "file": "tests/cart_test.py",
            "line": 12,
        }
    ]
    assert cart["flaky_tests"] == ["cart_test pays"]


@pytest.mark.parametrize("padding", [0, 300_000], ids=["in a row", "in the spool"])
async def test_notes_of_a_stripped_report_are_those_of_the_bytes_that_are_sent(tmp_path, sandbox, padding):
    report = MARKUP + b" " * padding
    async with running_gateway(tmp_path, sandbox, STRIP, poll_after="1h") as running:
        await send(running, report)
        [shown] = (await build_of(running))["reports"]
    assert shown["notes"] == ["Left out: 1 system-out."]
    assert (shown["tests"], shown["failures"]) == (1, 0)
    assert shown["sent_size"] < shown["size"]
