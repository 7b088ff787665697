"""How builds have ended, as the admin API shows it and as the sandbox received it."""

from collections import Counter
from typing import Any

import aiohttp

from bridge.sandbox.runs import SandboxRun, State
from bridge.sandbox.state import SandboxState
from tests.support.builds import Build
from tests.support.processes import GatewayProcess
from tests.support.reckoning import runs_of, wrong_bytes, wrong_labels, wrong_order


async def api_builds(gateway: GatewayProcess, *, token: str = "") -> dict[str, dict[str, Any]]:
    """Return every build as the admin API shows it, by its key."""
    found: dict[str, dict[str, Any]] = {}
    params = {"limit": "100"}
    headers = {"X-Auth-Token": token} if token else {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), headers=headers) as http:
        while True:
            async with http.get(f"{gateway.admin_url}/api/v1/builds", params=params) as answer:
                assert answer.status == 200, await answer.text()
                page = await answer.json()
            found |= {f"{build['job_id']}/{build['build_no']}": build for build in page["builds"]}
            if page["next"] is None:
                return found
            params = {"limit": "100", "after": page["next"]}


def _is_over(run: SandboxRun, at: int) -> bool:
    """Return whether a run is processed, or has failed because it has no upload.

    So fails one that an owner opened who had lost its lease by then: its only registration is told `upload_failed`.
    """
    status = run.status_at(at)
    return status is State.PROCESSED or (status is State.FAILED and all(one.put_at is None for one in run.uploads))


def _pending(world: SandboxState, build: Build) -> bool:
    at = world.micros()
    return not all(_is_over(run, at) for run in runs_of(world, build))


async def settled(gateway: GatewayProcess, world: SandboxState, builds: list[Build]) -> bool:
    """Return whether every build has ended: all delivered, and its runs over or the build shown as stuck."""
    shown = await api_builds(gateway)
    return all(
        build.key in shown
        and shown[build.key]["state"] == "finalized"
        and all(
            delivery["state"] != "pending"
            for report in shown[build.key]["reports"]
            for delivery in report["deliveries"]
        )
        and (shown[build.key]["stuck_reason"] or not _pending(world, build))
        for build in builds
    )


def assert_nothing_is_lost(world: SandboxState, builds: list[Build], shown: dict[str, dict[str, Any]]) -> None:
    """Fail unless every report arrived as sent, in a run that was finalized after it, and the gateway shows it."""
    rules = (wrong_bytes, wrong_labels, wrong_order)
    wrong = [sentence for build in builds for rule in rules for sentence in rule(world, build)]
    assert not wrong, "\n".join(wrong)
    states = Counter(
        delivery["state"]
        for build in shown.values()
        for report in build["reports"]
        for delivery in report["deliveries"]
    )
    assert states == {"delivered": sum(build.count() for build in builds)}
