"""Compares what the sandbox received with what CI sent: each function yields a sentence for each difference."""

from collections import Counter
from collections.abc import Iterator

from bridge.sandbox.runs import SandboxRun, State, Upload
from bridge.sandbox.state import SandboxState
from tests.support.builds import Build

TAGS = ("end-to-end",)
RUN_URL = "https://ci.example/{job_id}/{build_no}?daily={daily_build_num}"
"""As the settings of these tests say it: a template that needs record-info."""


GENERATIONS = ("", ".2", ".3")
"""Ends of the build_ids of a build: those of the runs that replace one that stays pending."""


def all_runs(world: SandboxState, build_id: str) -> list[SandboxRun]:
    """Return the runs of a build, also those that were replaced."""
    return [run for end in GENERATIONS for run in world.runs.all(build_id + end)]


def counting_runs(world: SandboxState, build_id: str) -> list[SandboxRun]:
    """Return the runs that count: those of the newest build_id, and those that have left pending."""
    runs, at = all_runs(world, build_id), world.micros()
    return [run for run in runs if run.build_id == runs[-1].build_id or run.status_at(at) is not State.PENDING]


def runs_of(world: SandboxState, build: Build) -> list[SandboxRun]:
    return counting_runs(world, build.testnod_build_id)


def uploads_of(world: SandboxState, build: Build) -> list[Upload]:
    return [upload for run in runs_of(world, build) for upload in run.uploads]


def all_processed(world: SandboxState, build: Build) -> bool:
    """Return whether every report has arrived, and every run of the build has been processed."""
    runs, at = runs_of(world, build), world.micros()
    return stored(world, build) == build.digests() and all(run.status_at(at) is State.PROCESSED for run in runs)


def stored(world: SandboxState, build: Build) -> Counter[str]:
    """Return how often storage holds each content for a build."""
    found = [world.objects.find(upload.key) for upload in uploads_of(world, build)]
    return Counter(thing.sha256 for thing in found if thing is not None)


def wrong_bytes(world: SandboxState, build: Build) -> Iterator[str]:
    """What was stored must be what was sent, each as often as it was sent."""
    sent, arrived = build.digests(), stored(world, build)
    if missing := sent - arrived:
        yield f"{build.key}: {missing.total()} of {sent.total()} reports are missing"
    if foreign := arrived - sent:
        yield f"{build.key}: {foreign.total()} contents were stored that were never sent, or too often"


def wrong_labels(world: SandboxState, build: Build) -> Iterator[str]:
    """Every registration must carry what record-info says of the build."""
    started = world.builds.find(build.job_id, build.build_no)
    assert started is not None
    daily = started.record()["daily_build_num"]
    metadata = {
        "branch": build.branch,
        "commit_sha": build.commit,
        "run_url": RUN_URL.format(job_id=build.job_id, build_no=build.build_no, daily_build_num=daily),
    }
    for upload in uploads_of(world, build):
        wanted = {**metadata, "build_id": upload.registered.build_id}  # by which runs_of has found it
        if upload.registered.metadata != wanted:
            yield f"{build.key}: registered with {upload.registered.metadata}, not {wanted}"
        if upload.registered.tags != TAGS:
            yield f"{build.key}: registered with the tags {upload.registered.tags}"


def wrong_order(world: SandboxState, build: Build) -> Iterator[str]:
    """No finalize before the build's end or while an upload is on its way, and one after the last PUT of each batch."""
    started = world.builds.find(build.job_id, build.build_no)
    assert started is not None
    assert started.ended_at is not None
    for run in runs_of(world, build):
        if not run.finalize_calls:
            yield f"{build.key}: run {run.id} was never finalized"
            continue
        if run.finalize_calls[0] < started.ended_at:
            yield f"{build.key}: run {run.id} was finalized before the build had ended"
        for upload in run.uploads:
            if upload.put_at is not None:
                yield from _wrong_moment(build, run, upload, upload.put_at)


def _wrong_moment(build: Build, run: SandboxRun, upload: Upload, put_at: int) -> Iterator[str]:
    if upload.registered_at < run.finalize_calls[0] < put_at:
        yield f"{build.key}: run {run.id} was finalized while upload {upload.id} was on its way"
    if run.finalize_calls[-1] < put_at:
        yield f"{build.key}: run {run.id} was not finalized after upload {upload.id}"
