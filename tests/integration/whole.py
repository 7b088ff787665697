"""A whole gateway in this process, beside the sandbox: its settings, one upload, and what operators are told of it."""

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
LOOK_SECONDS = 0.05  # between two looks at a condition that nothing announces: each may be a call
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
    """Return where a gateway listens and keeps what it has, and TestNod's place in the sandbox."""
    return GROUND.format(folder=folder, testnod=sandbox.testnod_url)


@asynccontextmanager
async def running_gateway(
    folder, sandbox, *tables, clock=None, poll_after="0s", poll_every="1s", patience_seconds=PATIENCE_SECONDS
):
    """Run a gateway that CI may use freely, with one route and `tables` after it, by the machine's clock or ours."""
    path = folder / "bridge.toml"
    polling = POLLING.format(poll_after=poll_after, poll_every=poll_every)
    path.write_text("\n".join((ground(folder, sandbox), polling, OPEN, SHOP, *tables)))
    async with Gateway(load(path, {}), clock=clock or SystemClock()) as running, asyncio.timeout(patience_seconds):
        yield running


async def upload(running, build_no=1, *files, node_id="n", complete=False):
    """Upload files, or the one that passes, as CI does."""
    form = aiohttp.FormData()
    for number, body in enumerate(files or (JUNIT,)):
        form.add_field("files", io.BytesIO(body), filename=f"{node_id}-{number}.xml", content_type="application/xml")
    if complete:
        form.add_field("complete", "true")
    url = f"{running.server_url}/v1/report/junit/report/upload?job_id={JOB}&build_no={build_no}&node_id={node_id}"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        assert (await answer.json())["status"] == "success"


async def ask(running, path):
    """Return what the API answers an operator."""
    async with aiohttp.ClientSession() as http, http.get(f"{running.admin_url}/api/v1/{path}") as answer:
        return await answer.json()


async def build_of(running, build_no=1):
    return (await ask(running, f"builds?job_id={JOB}&build_no={build_no}"))["builds"][0]


async def why(running, build_no=1):
    return (await ask(running, f"why?job_id={JOB}&build_no={build_no}"))["sentence"]


def visiting(running):
    """Tell whether a visit is under way, from before its claim until it is released; nothing else shows that."""
    return running._dispatcher._slots._value < MAX_RECONCILERS


async def until(true):
    """Return once a condition holds; it is looked at again and again, and may ask over a socket."""
    while not (await held if inspect.isawaitable(held := true()) else held):  # noqa: ASYNC110 -- nobody announces it
        await asyncio.sleep(LOOK_SECONDS)
