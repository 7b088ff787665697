"""The history of a job's tests, from uploads to the page and the API."""
# ruff: noqa: F811 -- fixtures of another file

import pytest

from bridge.domain.build import UploadMetadata
from bridge.domain.junit.result import Valid
from bridge.domain.junit.validator import validate_bytes
from bridge.server.admin import job_tests
from bridge.store import case_history
from tests.integration.server.test_console import JOB, page, serve  # noqa: F401 -- fixtures
from tests.support.ledger import Ledger, report

MAIN = UploadMetadata(branch="main", commit="c" * 40)


def junit(*cases: str) -> bytes:
    return f'<testsuite name="s">{"".join(cases)}</testsuite>'.encode()


def passed(name: str, seconds: float = 0.1) -> str:
    return f'<testcase classname="shop.Cart" name="{name}" time="{seconds}"/>'


def failed(name: str) -> str:
    return f'<testcase classname="shop.Cart" name="{name}" time="0.1"><failure message="no"/></testcase>'


async def accept(ledger: Ledger, build_no: int, body: bytes, *, name: str = "TEST-a.xml", **other) -> None:
    result = validate_bytes(body)
    assert isinstance(result, Valid)
    values = {"upload_metadata": MAIN, **other}
    await ledger.accept(report(name, body, case_digest=result.case_digest), build_no=build_no, **values)


async def history(client, **query):
    answer = await client.get("/api/v1/tests", params={"job_id": JOB, **query})
    return answer.status, await answer.json()


@pytest.fixture
async def client(serve, ledger):
    for number in range(1, 7):
        broken = failed("pays by card") if number == 4 else passed("pays by card")
        slow = passed("finds a book", 30.0 if number == 5 else 0.5)
        await accept(ledger, number, junit(broken, slow, passed(f"order {4700 + number * 7} is paid")))
    return await serve()


async def test_the_api_returns_flaky_slow_and_renamed_tests(client):
    status, found = await history(client)
    assert status == 200
    (flaky,) = found["flaky"]
    assert (flaky["name"], flaky["within"], flaky["failed"]["build_no"]) == ("pays by card", "commit", 4)
    (slow,) = found["slow"]
    assert (slow["name"], slow["run"]["build_no"]) == ("finds a book", 5)
    assert slow["median"] == pytest.approx(0.5, rel=0.1)
    (names,) = found["unstable_names"]
    assert "a number" in names["sentence"]
    assert names["rule"]["toml"].splitlines()[0] == "[[routes.rewrite]]"
    assert found["builds"] == [1, 2, 3, 4, 5, 6]
    assert not found["cut"]


async def test_the_page_names_the_flaky_test_and_offers_the_rule(client):
    status, text, _ = await page(client, f"/tests?job_id={JOB}")
    assert status == 200
    flaky, slow, names = text.split("<h2")[1:]
    assert "pays by card" in flaky
    assert "both have commit" in flaky
    assert "finds a book" in slow
    assert "order [0-9]+ is paid" in names
    assert "the job, and try it first" in names  # no build has a route yet


async def test_only_the_last_builds_are_looked_at(client):
    _, found = await history(client, limit=2)
    assert found["builds"] == [5, 6]
    assert found["flaky"] == []


@pytest.mark.parametrize("query", ["", "?job_id=", "?job_id=x&limit=0", "?job_id=x&limit=51", "?job_id=x&other=1"])
async def test_other_parameters_are_rejected_by_name(client, query):
    answer = await client.get(f"/api/v1/tests{query}")
    assert answer.status == 400
    assert (await answer.json())["error_code"] == "CB.00060200"


async def test_a_job_that_is_not_known_has_no_builds(client):
    _, found = await history(client, job_id="b" * 32)
    assert found["builds"] == []
    status, text, _ = await page(client, f"/tests?job_id={'b' * 32}")
    assert status == 200
    assert "No build of this job has results" in text


async def test_without_a_job_the_jobs_are_listed(serve, ledger):
    client = await serve()
    assert "No upload was accepted yet" in (await page(client, "/tests"))[1]
    for job in (JOB, "e" * 32):
        await accept(ledger, 3, junit(passed("a")), job_id=job)
    _, text, _ = await page(client, "/tests")
    assert f"/tests?job_id={JOB}" in text
    assert f"/tests?job_id={'e' * 32}" in text


async def test_older_builds_are_left_out_if_there_is_too_much(client, monkeypatch):
    monkeypatch.setattr(case_history, "MAX_BYTES", 300)
    _, found = await history(client)
    assert found["cut"]
    assert found["builds"][-1] == 6
    assert 1 not in found["builds"]
    monkeypatch.undo()
    monkeypatch.setattr(job_tests, "MAX_CASES", 7)
    _, found = await history(client)
    assert found["cut"]
    assert found["builds"] == [5, 6]
