"""Death by SIGKILL before and after each named step: a restart alone completes what was answered "success"."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.faults.gateway import FaultyGateway
from tests.faults.steps import STEPS, When
from tests.support.builds import Build, Ci, Upload
from tests.support.ledger_copy import registrations
from tests.support.outcome import settled
from tests.support.processes import until
from tests.support.reckoning import runs_of, stored, uploads_of, wrong_bytes

REFUSED = {"status": 403, "body": "<Error><Code>SignatureDoesNotMatch</Code></Error>"}
LOST_ANSWER = {"status": 503, "after": True}
FAULTS = {"upload_failed": ("s3.put", REFUSED), "replace a run": ("testnod.register", LOST_ANSWER)}
"""What has to go wrong first for a step to be taken at all."""

MOMENTS: tuple[When, ...] = ("before", "after")
BOTH_MOMENTS = os.environ.get("BRIDGE_NAMED_KILLS") == "all"
"""CI kills at every step once, before it or after it in turn: both would take minutes of it."""


@pytest.fixture
async def mortal(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[FaultyGateway]:
    settings["polling"] |= {"confirm_timeout": "3s"}  # what a lost registration holds is to be shown within the test
    async with FaultyGateway(tmp_path / "mortal", settings) as gateway:
        yield gateway


def a_build(build_no: int) -> Build:
    """Return a build of two reports: one rides in its row, the other goes to the spool."""
    sizes = {"small": 1_000, "large": 700_000}
    files = tuple(
        (f"TEST-{name}.xml", f'<testsuite name="{name}{build_no}"><!--{"x" * size}--></testsuite>'.encode())
        for name, size in sizes.items()
    )
    return Build(
        job_id="f" * 32,
        build_no=build_no,
        branch="main",
        commit="c" * 40,
        uploads=tuple(Upload(node_id="default", files=(file,)) for file in files),
        uploads_before_end=2,
        waits_for_finalize=False,
        pause_seconds=0,
    )


Kill = tuple[str, When]

CHAINS = 4
"""Lives of a ledger in which one kill comes after the other: the process that ends one's build meets the next one."""


def chains() -> list[list[Kill]]:
    """Return the kills of each life: steps that follow each other in a report's are in different ones."""
    kills: list[Kill] = [
        (step, when)
        for number, step in enumerate(STEPS)
        for when in (MOMENTS if BOTH_MOMENTS else (MOMENTS[number % 2],))
    ]
    return [kills[first::CHAINS] for first in range(CHAINS)]


@pytest.mark.early
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", chains(), ids=lambda kills: ", ".join(f"{when} {step}" for step, when in kills))
async def test_a_kill_before_or_after_any_step_loses_nothing(
    mortal: FaultyGateway, sandbox: Sandbox, tmp_path: Path, kills: list[Kill]
) -> None:
    mortal.die_at(*kills[0], armed=False)
    await mortal.start()
    builds = [a_build(number) for number in range(1, len(kills) + 1)]
    for number, (step, _) in enumerate(kills):
        if step in FAULTS:
            sandbox.state.faults.script(*FAULTS[step])
        await _live_through(mortal, sandbox, builds[number], kills[number + 1 :], most_extra=1 + (step in FAULTS))
        await until(
            lambda: settled(mortal, sandbox.state, builds[: number + 1]),  # noqa: B023 -- before the next one
            "all has come to its end",
        )
    assert await mortal.terminate() == 0
    assert {row.state for row in registrations(tmp_path / "bridge.db")} <= {"stored", "lost", "failed"}


async def _live_through(
    mortal: FaultyGateway, sandbox: Sandbox, build: Build, later: list[Kill], *, most_extra: int
) -> None:
    """Play a build during which the gateway dies, and see it delivered whole by the next process."""
    mortal.arm()
    async with Ci(sandbox.state, lambda: mortal.server_url) as ci:
        playing = asyncio.create_task(ci.play(build))
        await until(lambda: not mortal.running, "the gateway dies")
        assert mortal.exit_code == -signal.SIGKILL
        if later:
            mortal.die_at(*later[0], armed=False)
        else:
            mortal.live()
        await mortal.start()
        await playing
    await until(lambda: _arrived(sandbox, build), "all arrives after the death")
    assert list(wrong_bytes(sandbox.state, build)) == []
    assert len(uploads_of(sandbox.state, build)) <= build.count() + most_extra


def _arrived(sandbox: Sandbox, build: Build) -> bool:
    runs = runs_of(sandbox.state, build)
    return stored(sandbox.state, build) == build.digests() and bool(runs) and all(run.finalize_calls for run in runs)
