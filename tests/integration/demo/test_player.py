"""A build of the demo: its progress is known at any time, and failures are reported."""

import io
from dataclasses import replace

import aiohttp
import pytest
from rich.console import Console

from bridge.demo.builds import demo_builds
from bridge.demo.demo import report_results
from bridge.demo.player import BuildPlayer, open_environment


@pytest.fixture
async def stage(tmp_path):
    async with open_environment(tmp_path, postgres=False, s3=False) as stage:
        yield stage


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


async def test_a_build_is_followed_until_its_run_is_processed(http, stage, console):
    build = demo_builds()[3]
    player = BuildPlayer(http, stage, build)

    await player.play()

    progress = player.progress
    assert (progress.reports, progress.tests, progress.failures) == (1, 4, 1)
    assert progress.processed
    assert len(progress.test_run_ids) == 1
    assert progress.finalize_seconds >= 0.5  # the settle time
    assert await report_results(console, [player], 1.0)
    assert "1 builds, 1 reports, 4 tests: every run is processed, after 1.0 s." in console.file.getvalue()


async def test_the_gateways_own_sentence_tells_what_has_become_of_a_build_that_is_not_processed(http, stage, console):
    player = BuildPlayer(http, stage, demo_builds()[0])

    assert not await report_results(console, [player], 1.0)

    told = console.file.getvalue()
    assert told.startswith("green, Maven is waiting: No report of build 412 of job ")
    assert "processed" not in told


async def test_a_build_whose_report_is_rejected_is_not_played_on(http, stage, console):
    build = replace(demo_builds()[0], uploads={"default": {"notes.xml": b"<html/>"}})
    player = BuildPlayer(http, stage, build)

    await player.play()

    assert player.progress.status == "rejected"
    assert not await report_results(console, [player], 1.0)
    assert "notes.xml" in console.file.getvalue()
