"""A whole gateway in this process beside the sandbox: its settings, uploads, and the answers of its admin API."""

import asyncio
import inspect
import io
from contextlib import asynccontextmanager

import aiohttp

from bridge.app.gateway import Gateway
from bridge.clock import SystemClock
from bridge.sandbox.sandbox import DEFAULT_PROJECT_TOKEN
from bridge.settings import load
from bridge.worker.dispatcher import MAX_RECONCILERS

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
JUNIT = b'<testsuite><testcase name="a"/></testsuite>'
PATIENCE_SECONDS = 120
LOOK_SECONDS = 0.02  # between two looks at a condition that nothing announces
LONGEST_LOOK_SECONDS = 0.15  # if the condition makes a call
WORK_SECONDS = 0.01  # for what a fake clock has woken, between two moves of it
GROUND = """
[server]
host = "127.0.0.1"
port = 0
[admin]
port = 0
[store]
url = "sqlite:///{folder}/bridge.db"
spool = "{folder}/spool"
min_free_space = "1 MiB"
[testnod]
base_url = "{testnod}"
storage_hosts = ["127.0.0.1"]
allow_private_storage = true
"""
POLLING = """
[polling]
initial_delay = "{poll_after}"
min_interval = "{poll_every}"
max_interval = "{poll_every}"
requests_per_minute = 60_000
grace_period = "0s"
"""
OPEN = '[callers]\nauth = "open"\n'
SHOP = f'[[routes]]\nname = "shop"\nproject_token = "{DEFAULT_PROJECT_TOKEN}"\n'


def ground(folder, sandbox):
    """Return the settings of listeners, store and TestNod for a gateway beside the sandbox."""
    return GROUND.format(folder=folder, testnod=sandbox.testnod_url)


@asynccontextmanager
async def running_gateway(
    folder, sandbox, *tables, clock=None, poll_after="0s", poll_every="1s", patience_seconds=PATIENCE_SECONDS
):
    """Run a gateway without authentication, with one route and `tables` after it, by the machine's clock or `clock`."""
    path = folder / "bridge.toml"
    polling = POLLING.format(poll_after=poll_after, poll_every=poll_every)
    path.write_text("\n".join((ground(folder, sandbox), polling, OPEN, SHOP, *tables)))
    async with Gateway(load(path, {}), clock=clock or SystemClock()) as running, asyncio.timeout(patience_seconds):
        yield running


async def upload(running, build_no=1, *files, node_id="n", complete=False):
    """Upload files as CI does, or one valid report."""
    form = aiohttp.FormData()
    for number, body in enumerate(files or (JUNIT,)):
        form.add_field("files", io.BytesIO(body), filename=f"{node_id}-{number}.xml", content_type="application/xml")
    if complete:
        form.add_field("complete", "true")
    url = f"{running.server_url}/v1/report/junit/report/upload?job_id={JOB}&build_no={build_no}&node_id={node_id}"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        assert (await answer.json())["status"] == "success"


async def ask(running, path):
    """Return the admin API's answer."""
    async with aiohttp.ClientSession() as http, http.get(f"{running.admin_url}/api/v1/{path}") as answer:
        return await answer.json()


async def build_of(running, build_no=1):
    return (await ask(running, f"builds?job_id={JOB}&build_no={build_no}"))["builds"][0]


async def why(running, build_no=1):
    return (await ask(running, f"why?job_id={JOB}&build_no={build_no}"))["sentence"]


def visiting(running):
    """Return whether a build is being reconciled, from before its claim until its release."""
    return running._dispatcher._slots._value < MAX_RECONCILERS


async def let_pass(running, clock, by_us=None):
    """Move the clock by `by_us`, or to the next wake, but only while no build is visited; then let the gateway work.

    A gateway works as fast as its machine. A clock that ran ahead of it would end leases before their first write,
    calls before their answers, and tasks that are merely slow.
    """
    if not visiting(running):
        if by_us is not None:
            clock.advance(by_us)
        elif clock.next_wake_at is not None:
            clock.set(max(clock.now(), clock.next_wake_at))
    await asyncio.sleep(WORK_SECONDS)
    # Behind what the woken ask of the ledger: reads and writes are done in turn.
    await running.database.read(lambda _: None)
    await running.database.transact(lambda _, __: None)


async def let_pass_until(running, clock, true, by_us=None):
    """Let time pass, as `let_pass` does, until a condition holds; it may be a coroutine."""
    while not ((await held) if inspect.isawaitable(held := true()) else held):
        await let_pass(running, clock, by_us)


async def until(true):
    """Return once a condition holds. One that is a coroutine makes a call, so it is looked at less and less often."""
    look_seconds = LOOK_SECONDS
    while True:
        held = true()
        calls = inspect.isawaitable(held)
        if (await held) if calls else held:
            return
        await asyncio.sleep(look_seconds)
        if calls:
            look_seconds = min(1.25 * look_seconds, LONGEST_LOOK_SECONDS)
