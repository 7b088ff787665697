"""A hundred builds through the real process: what CI sent is what TestNod has, in runs that end when they should."""

from pathlib import Path
from random import Random

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Build, Ci, Upload, draw_builds
from tests.support.corpus import Corpus
from tests.support.processes import GatewayProcess, until
from tests.support.reckoning import all_processed, runs_of, stored, uploads_of, wrong_bytes, wrong_labels, wrong_order

BUILDS = 100


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_hundred_builds_arrive_whole_and_their_runs_end_after_their_last_reports(
    gateway: GatewayProcess, sandbox: Sandbox, corpus: Corpus, spool: Path, seed: int
) -> None:
    world, builds = sandbox.state, draw_builds(Random(seed), corpus, BUILDS)
    async with Ci(world, lambda: gateway.server_url) as ci:
        await ci.play_all(builds)
    await until(
        lambda: all(all_processed(world, build) for build in builds),
        "every run of every build is processed",
        seconds=180,
        look_seconds=0.1,
    )
    await until(lambda: not _files(spool), "the spool is empty")
    assert await gateway.terminate() == 0

    wrong = [
        sentence
        for build in builds
        for rule in (wrong_bytes, wrong_labels, wrong_order)
        for sentence in rule(world, build)
    ]
    assert wrong == []
    assert {build.key: _sent_twice(sandbox, build) for build in builds if _sent_twice(sandbox, build)} == {}
    assert {build.key for build in builds if build.punctual and len(runs_of(world, build)) != 1} == set()
    late = [build for build in builds if build.waits_for_finalize]
    assert {build.key: len(runs_of(world, build)) for build in late} == {build.key: 2 for build in late}
    assert len(late) > BUILDS // 20
    assert {run.build_id for run in world.runs.all()} == {build.testnod_build_id for build in builds}


def _sent_twice(sandbox: Sandbox, build: Build) -> list[int]:
    """Return the uploads that were more than one registration and one PUT a report: nothing failed, so none should."""
    uploads = uploads_of(sandbox.state, build)
    return [upload.id for upload in uploads if upload.puts != 1] + [0] * (len(uploads) - build.count())


async def test_files_that_are_no_reports_are_refused_by_name_and_the_others_of_their_upload_arrive(
    gateway: GatewayProcess, sandbox: Sandbox, corpus: Corpus
) -> None:
    good = corpus.reports[0]
    build = Build(
        job_id="f" * 32,
        build_no=1,
        branch="main",
        commit="c" * 40,
        uploads=(Upload(node_id="default", files=(good,)),),
        uploads_before_end=1,
        waits_for_finalize=False,
        pause_seconds=0,
    )
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        mixed = Upload(node_id="default", files=(*corpus.refused, good))
        status, body = await ci.send(build, mixed)
        assert status == 400
        assert [name for name, _ in corpus.refused if name not in body] == []
        assert good[0] not in body
        await ci.play(build)  # the good one again: known, and delivered once
    await until(lambda: all_processed(sandbox.state, build), "the good report's run is processed")
    assert stored(sandbox.state, build).total() == 1
