"""Death by SIGKILL between the end of a build and finalize: the report `codearts-build` is added and stored once."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.faults.gateway import FaultyGateway
from tests.faults.steps import When
from tests.support.builds import Ci, small_build
from tests.support.outcome import api_builds
from tests.support.processes import until

KILLS: list[tuple[str, When, int]] = [
    ("register", "before", 2),  # the second register is that of the report: it is in the ledger, and no more
    ("PUT", "after", 2),
    ("finalize", "before", 1),
]


@pytest.mark.timeout(600)
async def test_a_kill_around_the_report_of_the_result_leaves_one(
    settings: dict[str, Any], sandbox: Sandbox, tmp_path: Path
) -> None:
    settings["routes"][0]["result_suite"] = "always"
    async with FaultyGateway(tmp_path / "mortal", settings) as mortal:
        for number, kill in enumerate(KILLS, start=1):
            build = small_build(number)
            mortal.die_at(*kill)
            if not mortal.running:
                await mortal.start()
            async with Ci(sandbox.state, lambda: mortal.server_url) as ci:
                playing = asyncio.create_task(ci.play(build))
                await until(lambda: not mortal.running, f"the gateway dies {kill}")
                assert mortal.exit_code == -signal.SIGKILL
                mortal.live()
                await mortal.start()
                await playing

            async def is_finalized(key: str = build.key) -> bool:
                return (await api_builds(mortal))[key]["state"] == "finalized"

            await until(is_finalized, "the build is finalized")
            found = (await api_builds(mortal))[build.key]
            names = [(report["name"], report["deliveries"][0]["state"]) for report in found["reports"]]
            assert names == [(f"TEST-{number}.xml", "delivered"), ("codearts-build.xml", "delivered")]
            uploads = [upload for run in sandbox.state.runs.all(build.testnod_build_id) for upload in run.uploads]
            assert len([upload for upload in uploads if sandbox.state.objects.find(upload.key)]) == 2
            await mortal.terminate()
