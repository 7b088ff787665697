"""How builds have come out, as the gateway shows it and as the sandbox received it.

It knows the admin API and the sandbox's world, not what was done to the gateway meanwhile.
"""

from collections import Counter
from typing import Any

import aiohttp

from bridge.sandbox.runs import SandboxRun, State
from bridge.sandbox.state import SandboxState
from tests.end_to_end.builds import Build
from tests.end_to_end.processes import GatewayProcess
from tests.end_to_end.reckoning import runs_of, wrong_bytes, wrong_labels, wrong_order


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
    """Tell whether a run is processed, or has failed because nothing came of it.

    So fails one that an owner opened who had lost its lease by then: its only registration is told `upload_failed`.
    """
    status = run.status_at(at)
    return status is State.PROCESSED or (status is State.FAILED and all(one.put_at is None for one in run.uploads))


def _pending(world: SandboxState, build: Build) -> bool:
    at = world.micros()
    return not all(_is_over(run, at) for run in runs_of(world, build))


async def settled(gateway: GatewayProcess, world: SandboxState, builds: list[Build]) -> bool:
    """Tell whether every build has come to its end: all delivered, and its runs over or it is shown as stuck."""
    shown = await api_builds(gateway)
    return all(
        build.key in shown
        and shown[build.key]["state"] == "finalized"
        and all(
            delivery["state"] != "pending"
            for report in shown[build.key]["reports"]
            for delivery in report["deliveries"]
        )
        and (shown[build.key]["stuck"] or not _pending(world, build))
        for build in builds
    )


def assert_nothing_is_lost(world: SandboxState, builds: list[Build], shown: dict[str, dict[str, Any]]) -> None:
    """Every report arrived as it was sent, in a run of its build, finalized after it; the gateway says so too."""
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
