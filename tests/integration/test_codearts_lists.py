"""CodeArts' lists for commands, from the sandbox: pages, windows, credentials, throttled calls and refusals."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.commands import codearts_lists
from bridge.commands.codearts_lists import open_lists
from bridge.domain.instants import DAY, HOUR, Instant
from bridge.errors import BridgeError
from bridge.sandbox.sandbox import DEFAULT_KEY, DEFAULT_USER, Sandbox
from bridge.settings import Settings, load
from tests.support.processes import toml
from tests.support.quick_settings import quick_settings

JOB = "68491d9bc97b4774adb93e29b46d2dc6"
PROJECT = "b4d3971c3988463b865f6f920846149e"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


def read(sandbox: Sandbox, folder: Path, **codearts: Any) -> Settings:
    settings = quick_settings(sandbox, folder)
    settings["codearts"] = {**settings["codearts"], **codearts}
    settings["polling"]["requests_per_minute"] = 600_000
    path = folder / "bridge.toml"
    path.write_text(toml(settings))
    return load(path, {})


@pytest.mark.parametrize("offset_hours", [8, 0, -8])
async def test_every_build_of_a_year_is_listed_once_whatever_clock_codearts_has(
    offset_hours: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.state.behavior = sandbox.state.behavior.changed({"list_utc_offset_hours": offset_hours})
    now = Instant(sandbox.state.micros())
    for number in range(1, 366):
        at = now - (366 - number) * DAY + number % 24 * HOUR
        sandbox.state.builds.start(JOB, number, at=at)
        sandbox.state.builds.end(JOB, number, at=at + 1)

    async with open_lists(read(sandbox, tmp_path)) as lists:
        listed = await lists.builds_of(JOB, Instant(now - 366 * DAY), now)

    assert sorted(build.build_no for build in listed) == list(range(1, 366))
    calls = sandbox.state.calls.at("codearts.record_list")
    assert {call.status for call in calls} == {200}  # 400: a window of more than 31 days
    assert len(calls) == 13


async def test_a_window_with_many_builds_has_pages_and_what_began_outside_of_it_is_left_out(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    now = Instant(sandbox.state.micros())
    for number in range(1, 251):
        sandbox.state.builds.start(JOB, number, at=now - HOUR + number)
    sandbox.state.builds.start(JOB, 999, at=now - 3 * HOUR)

    async with open_lists(read(sandbox, tmp_path)) as lists:
        listed = await lists.builds_of(JOB, Instant(now - 2 * HOUR), now)

    assert sorted(build.build_no for build in listed) == list(range(1, 251))


@pytest.mark.parametrize(
    "credentials",
    [
        {"auth": "aksk", "access_key": DEFAULT_KEY[0], "secret_key": DEFAULT_KEY[1]},
        {"auth": "password", **dict(zip(("user", "password", "domain"), DEFAULT_USER, strict=True))},
    ],
    ids=["aksk", "password"],
)
async def test_jobs_are_listed_with_the_credentials_of_the_settings(
    credentials: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    for number in range(1, 206):
        sandbox.state.builds.start(f"{number:032}", 1, at=sandbox.state.micros())
    settings = read(sandbox, tmp_path, iam_endpoint=sandbox.iam_url, project="cn-north-4", **credentials)

    async with open_lists(settings) as lists:
        jobs = await lists.jobs_of(PROJECT)

    assert [job.job_id for job in jobs] == [f"{number:032}" for number in range(1, 206)]


async def test_a_throttled_call_is_repeated_and_a_refused_one_is_named(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codearts_lists, "MAX_PAUSE_SECONDS", 0.01)
    sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    sandbox.state.faults.script("codearts.job_list", {"status": 429}, {"cut": True}, {"status": 503})

    async with open_lists(read(sandbox, tmp_path)) as lists:
        assert [job.job_id for job in await lists.jobs_of(PROJECT)] == [JOB]
        sandbox.state.faults.script("codearts.job_list", {"status": 403})
        with pytest.raises(BridgeError, match=f"CodeArts did not list the jobs of project {PROJECT}: "):
            await lists.jobs_of(PROJECT)


async def test_without_an_endpoint_it_is_named_what_is_missing(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"codearts\.endpoint is not set"):
        async with open_lists(read(sandbox, tmp_path, endpoint="")):
            pass
