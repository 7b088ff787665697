"""What a run of chance plays on: the stand-ins behind fault proxies, database and storage, and gateways that are kept
running.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from bridge.demo.postgres import PostgresServer
from bridge.sandbox.sandbox import Sandbox
from bridge.sandbox.state import Behavior, SandboxState
from tests.chaos.bad_build import BadAnswers
from tests.chaos.faults import Troubles
from tests.chaos.keeper import Keeper
from tests.chaos.machine import Machine
from tests.chaos.plan import Options, Plan
from tests.faults.gateway import FaultyGateway
from tests.faults.proxy import FaultProxy
from tests.support.canaries import CALLER, plant
from tests.support.ports import REFUSED_URL
from tests.support.quick_settings import quick_settings
from tests.support.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Weed

URL_SECONDS = 12
LONGEST_PUT_SECONDS = 6
"""A URL of unknown use is asked about only after both: minutes in life, and here within the drain."""

LEASE_SECONDS = 4
MAX_FILES = 200
LIMITS = {"max_files": MAX_FILES, "max_report_size": "4 MiB", "max_request_size": "8 MiB", "shutdown_timeout": "5s"}
"""Small enough that going beyond them costs little."""

GREEDY, GREEDY_PROJECT = "canary-greedy-token-5e1f", "canary-greedy-project-token-07ab"
"""The token of the caller that has nothing but the route `greedy`, and the TestNod project of that route."""


@dataclass(slots=True)
class Stage:
    """Everything that stands while a run is played."""

    options: Options
    folder: Path
    sandbox: Sandbox
    proxies: Mapping[str, FaultProxy]
    keepers: list[Keeper]
    bad: BadAnswers
    chance: Random  # of what depends on the moment: which gateway an upload meets
    troubles: Troubles
    machine: Machine
    postgres: PostgresServer | None = None
    weed: Weed | None = None
    began_at: int = field(default_factory=lambda: time.time_ns() // 1000)

    @property
    def world(self) -> SandboxState:
        return self.sandbox.state

    @property
    def gateways(self) -> list[FaultyGateway]:
        return [keeper.gateway for keeper in self.keepers]

    def server_url(self) -> str:
        """Return where a load balancer would send the next upload; there is no answer if no gateway is alive."""
        alive = [gateway for gateway in self.gateways if gateway.running and gateway.server_url]
        return self.chance.choice(alive or self.gateways).server_url or REFUSED_URL

    def now(self) -> int:
        """Return the time in microseconds UTC."""
        return time.time_ns() // 1000


@asynccontextmanager
async def set_stage(options: Options, plan: Plan, folder: Path) -> AsyncIterator[Stage]:
    """Start everything, and end it."""
    async with AsyncExitStack() as ends:
        behavior = Behavior(
            keep_bytes=False, url_seconds=URL_SECONDS, calls_per_minute=plan.calls_per_minute, retry_after=True
        )
        sandbox = Sandbox(behavior=behavior)
        bad = BadAnswers(plan.bad, sandbox)
        with bad.installed():
            await ends.enter_async_context(sandbox)
        upstreams = {"testnod": sandbox.testnod_url, "s3": sandbox.s3_url, "codearts": sandbox.codearts_url}
        proxies = {name: await ends.enter_async_context(FaultProxy(url)) for name, url in upstreams.items()}
        sandbox.state.s3_url = proxies["s3"].url
        postgres = await ends.enter_async_context(PostgresServer()) if options.postgres else None
        weed = ends.enter_context(Weed()) if options.s3 else None
        (folder / "data").mkdir()
        settings = _settings(options, sandbox, proxies, folder / "data", postgres, weed)
        troubles = Troubles()
        machine = Machine(troubles)
        await ends.enter_async_context(machine.watched())
        stage = Stage(
            options=options,
            folder=folder,
            sandbox=sandbox,
            proxies=proxies,
            keepers=[],
            bad=bad,
            chance=Random(f"{options.seed}/moments"),
            troubles=troubles,
            machine=machine,
            postgres=postgres,
            weed=weed,
        )
        for number in range(options.replicas):
            gateway = FaultyGateway(
                folder / f"gateway-{number}",
                settings,
                bad_disk=not (options.postgres or options.s3),
                bad_clock=True,
                remembers_syncs=False,
                longest_put_seconds=LONGEST_PUT_SECONDS,
            )
            await ends.enter_async_context(gateway)
            stage.keepers.append(Keeper(gateway, plan.deaths[number :: options.replicas]))
        await asyncio.gather(*(keeper.start() for keeper in stage.keepers))
        yield stage


def _settings(
    options: Options,
    sandbox: Sandbox,
    proxies: Mapping[str, FaultProxy],
    data: Path,
    postgres: PostgresServer | None,
    weed: Weed | None,
) -> dict[str, Any]:
    settings = quick_settings(sandbox, data)
    plant(settings, sandbox.state)
    _share(settings, sandbox)
    settings["server"] |= LIMITS
    settings["testnod"]["base_url"] = proxies["testnod"].url
    settings["codearts"]["endpoint"] = proxies["codearts"].url
    # Of three runs that replace each other, the last begins after the faults, so that none is left pending.
    confirm_seconds = max(5.0, options.seconds / 2)
    settings["polling"] |= {"confirm_timeout": f"{confirm_seconds:g}s", "not_found_timeout": "3s"}
    settings["delivery"] |= {"max_finalize_delay": "5s", "lease_duration": f"{LEASE_SECONDS}s"}
    if postgres is not None:
        settings["store"]["url"] = postgres.url()
    if weed is not None:
        settings["store"]["spool"] = f"s3://{BUCKET}/spool"
        keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
        settings["s3"] = {"endpoint_url": weed.url, "region": REGION, **keys}
    return settings


def _share(settings: dict[str, Any], sandbox: Sandbox) -> None:
    """Give a second caller a route and a project of its own, and let strangers try IAM."""
    sandbox.state.runs.open_project(GREEDY_PROJECT, "greedy")
    [shared] = settings["routes"]
    greedy = {**shared, "name": "greedy", "project_token": GREEDY_PROJECT, "job_id": ["greedy*"]}
    settings["routes"] = [greedy, shared]
    settings["codearts"]["iam_endpoint"] = sandbox.iam_url
    settings["proxy"] = {"methods": ["GET", "HEAD", "POST"]}
    settings["callers"]["auth"] = [*settings["callers"]["auth"], "iam"]
    for caller in (*settings["callers.tokens"], *settings["callers.keys"]):
        caller["routes"] = [shared["name"]]
        if caller.get("token") == CALLER:
            caller["scopes"] = [*caller["scopes"], "proxy"]
    settings["callers.tokens"] = [
        *settings["callers.tokens"],
        {"name": "greedy", "token": GREEDY, "routes": ["greedy"], "scopes": ["upload", "status"]},
    ]
    settings["callers.users"] = [{"name": "*", "routes": [shared["name"]]}]
