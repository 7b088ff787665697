"""Builds while the gateway is killed again and again and its upstreams fail: nothing that was accepted is lost."""

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bridge.sandbox.faults import MAX_CALLS
from bridge.sandbox.runs import State
from bridge.sandbox.sandbox import Sandbox
from bridge.sandbox.state import SandboxState
from tests.support.builds import Build, Ci, draw_builds
from tests.support.corpus import Corpus
from tests.support.ledger_copy import Row, registrations
from tests.support.outcome import api_builds, assert_nothing_is_lost, settled
from tests.support.processes import GatewayProcess, Settings, until
from tests.support.reckoning import runs_of, uploads_of

BUILDS = int(os.environ.get("BRIDGE_BUILDS", "30"))
KILLS = int(os.environ.get("BRIDGE_KILLS", "4"))
FAULT_RATE = 0.05  # of the calls to every upstream
LONGEST_JITTER_SECONDS = 0.3  # so that a kill does not always follow upon an answer
LOOK_SECONDS = 0.005  # between two looks whether the moment of a kill has come
SETTLE_SECONDS = 180.0  # for everything to come to its end, `confirm_timeout` included

IN_FLIGHT = ("requested", "registered")


@pytest.fixture
def settings(settings: dict[str, Any]) -> Settings:
    # A run that a lost registration holds is to be shown as stuck within the test, which counts its registrations.
    polling = {**settings["polling"], "min_interval": "500ms", "confirm_timeout": "5s"}
    return {**settings, "polling": polling, "delivery": {**settings["delivery"], "replace_stuck_runs": False}}


@dataclass(slots=True)
class Toll:
    """What the kills hit: for each, the registrations that were asked and named when the gateway died."""

    by_kill: list[list[Row]] = field(default_factory=list)

    def asked(self) -> set[int]:
        return {row.id for rows in self.by_kill for row in rows if row.state == "requested"}


async def _kill_at_drawn_moments(
    gateway: GatewayProcess, ledger: Path, ci: Ci, world: SandboxState, builds: list[Build], chance: Random
) -> Toll:
    """Kill and restart the gateway whenever CI's uploads and stored reports together have come to a drawn number."""
    toll = Toll()
    whole = sum(len(build.uploads) + build.count() for build in builds)

    async def comes(moment: int) -> None:
        await until(
            lambda: ci.answered + len(world.objects) >= moment,
            f"{moment} of {whole} steps are done",
            seconds=SETTLE_SECONDS,
            look_seconds=LOOK_SECONDS,
        )

    for moment in sorted(chance.sample(range(1, whole), KILLS)):
        await comes(moment)
        await asyncio.sleep(chance.uniform(0, LONGEST_JITTER_SECONDS))
        await gateway.kill()
        rows = await asyncio.to_thread(registrations, ledger)
        toll.by_kill.append([row for row in rows if row.state in IN_FLIGHT])
        await gateway.start()
    return toll


@pytest.mark.timeout(600)
async def test_what_was_answered_success_survives_kills_and_failing_upstreams(
    gateway: GatewayProcess, sandbox: Sandbox, corpus: Corpus, tmp_path: Path, seed: int
) -> None:
    world, ledger, chance = sandbox.state, tmp_path / "bridge.db", Random(seed)
    builds = draw_builds(chance, corpus, BUILDS)
    world.faults.at_random("*", rate=FAULT_RATE / 2, answer={"status": 503}, seed=chance.getrandbits(32))
    world.faults.at_random("*", rate=FAULT_RATE / 2, answer={"status": 503, "after": True}, seed=chance.getrandbits(32))

    async with Ci(world, lambda: gateway.server_url) as ci, asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(_kill_at_drawn_moments(gateway, ledger, ci, world, builds, chance))
        tasks.create_task(ci.play_all(builds))
    await until(
        lambda: settled(gateway, world, builds),
        "every build has come to its end",
        seconds=SETTLE_SECONDS,
        look_seconds=0.3,
    )
    shown = await api_builds(gateway)
    assert await gateway.terminate() == 0

    _print_figures(world, builds, killing.result(), ci, shown)
    assert_nothing_is_lost(world, builds, shown)
    _assert_extra_registrations_have_their_reason(world, builds, killing.result(), registrations(ledger))
    _assert_only_lost_registrations_hold_a_run(world, builds, shown)


def _assert_extra_registrations_have_their_reason(
    world: SandboxState, builds: list[Build], toll: Toll, rows: list[Row]
) -> None:
    """At most one extra registration per report and kill that hit it, and one per lost answer."""
    by_build = Counter(row.build for row in rows)
    unknown = {build.key: len(uploads_of(world, build)) - by_build[build.key] for build in builds}
    assert {key: extra for key, extra in unknown.items() if extra > 0} == {}, "TestNod knows more than the ledger"

    assert Counter(row.state for row in rows)["stored"] == sum(build.count() for build in builds)
    for hit in toll.by_kill:
        assert max(Counter(row.delivery_id for row in hit).values(), default=0) <= 1
    extra = {row.id for row in rows if row.state != "stored"}
    assert len(extra - toll.asked()) <= _lost_answers(world)


def _lost_answers(world: SandboxState) -> int:
    assert len(world.calls.at()) < MAX_CALLS, "the sandbox has forgotten its first calls: this test cannot count them"
    return sum(call.status == 503 for call in world.calls.at("testnod.register"))


def _assert_only_lost_registrations_hold_a_run(
    world: SandboxState, builds: list[Build], shown: dict[str, dict[str, Any]]
) -> None:
    """A run is processed, or an upload whose id is unknown holds it and its build is shown as stuck."""
    at = world.micros()
    for build in builds:
        stuck = shown[build.key]["stuck_reason"]
        runs = runs_of(world, build)
        held = [run for run in runs if any(upload.terminal_at() is None for upload in run.uploads)]
        assert [run.id for run in runs if run not in held and run.status_at(at) is not State.PROCESSED] == []
        assert bool(held) == bool(stuck), f"{build.key} is shown as stuck: {stuck}; held runs: {len(held)}"
        assert not stuck or "lost" in stuck


def _print_figures(
    world: SandboxState, builds: list[Build], toll: Toll, ci: Ci, shown: dict[str, dict[str, Any]]
) -> None:
    reports, registered = sum(build.count() for build in builds), sum(len(uploads_of(world, b)) for b in builds)
    hit = [Counter(row.state for row in rows) for rows in toll.by_kill]
    figures = {
        "builds": len(builds),
        "reports": reports,
        "kills": len(toll.by_kill),
        "uploads": sum(len(build.uploads) for build in builds),
        "tries of uploads": ci.tries,
        "registrations": registered,
        "asked at kills": [count["requested"] for count in hit],
        "named at kills": [count["registered"] for count in hit],
        "register answers lost": _lost_answers(world),
        "calls answered 503": sum(call.status == 503 for call in world.calls.at()),
        "builds stuck": sum(bool(build["stuck_reason"]) for build in shown.values()),
    }
    print("; ".join(f"{name} {figure}" for name, figure in figures.items()))  # noqa: T201 -- shown by -s
