"""Death by SIGKILL before and after each named step: a restart alone completes what was answered "success"."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.end_to_end.builds import Build, Ci, Upload
from tests.end_to_end.ledger import registrations
from tests.end_to_end.processes import START_SECONDS, until
from tests.end_to_end.reckoning import runs_of, stored, uploads_of, wrong_bytes
from tests.faults.gateway import FaultyGateway
from tests.faults.steps import STEPS, When

REFUSED = {"status": 403, "body": "<Error><Code>SignatureDoesNotMatch</Code></Error>"}
FAULTS = {"upload_failed": ("s3.put", REFUSED)}
"""What has to go wrong first for a step to be taken at all."""

BOTH_MOMENTS = os.environ.get("BRIDGE_NAMED_KILLS") == "all"
"""CI kills at every step once, before it or after it in turn: both would take minutes of it."""


@pytest.fixture
async def mortal(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[FaultyGateway]:
    settings["polling"] |= {"confirm_for": "3s"}  # what a lost registration holds is to be shown within the test
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


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_before_or_after_any_step_loses_nothing(
    mortal: FaultyGateway, sandbox: Sandbox, tmp_path: Path, step: str
) -> None:
    moments: tuple[When, ...] = ("before", "after")
    if not BOTH_MOMENTS:
        moments = (moments[list(STEPS).index(step) % 2],)
    for build_no, when in enumerate(moments, start=1):
        if step in FAULTS:
            sandbox.world.faults.script(*FAULTS[step])
        mortal.die_at(step, when)
        await _live_through(mortal, sandbox, a_build(build_no), most_extra=1 + (step in FAULTS))
    assert {row.state for row in registrations(tmp_path / "bridge.db")} <= {"stored", "lost", "failed"}


async def _live_through(mortal: FaultyGateway, sandbox: Sandbox, build: Build, *, most_extra: int) -> None:
    """Play a build during which the gateway dies, and see it delivered whole by the next process."""
    await mortal.spawn()
    await until(mortal.listens, "the gateway listens", seconds=START_SECONDS)
    async with Ci(sandbox.world, lambda: mortal.server_url) as ci:
        playing = asyncio.create_task(ci.play(build))
        await until(lambda: not mortal.running, "the gateway dies")
        assert mortal.exit_code == -signal.SIGKILL
        mortal.live()
        await mortal.start()
        await playing
    await until(lambda: _arrived(sandbox, build), "all arrives after the death")
    assert list(wrong_bytes(sandbox.world, build)) == []
    assert len(uploads_of(sandbox.world, build)) <= build.count() + most_extra
    await mortal.terminate()


def _arrived(sandbox: Sandbox, build: Build) -> bool:
    runs = runs_of(sandbox.world, build)
    return stored(sandbox.world, build) == build.digests() and bool(runs) and all(run.finalize_calls for run in runs)
