"""The gateway with its spool in a real S3: delivered from there, refused in time while it is away."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.faults.odd_s3 import KINDS, Odd, OddS3
from tests.support.processes import GatewayProcess, until
from tests.support.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Weed, new_prefix

JOB = "a1" * 16
UPLOAD = "/v1/report/junit/report/upload"
SMALL = b'<testsuite name="s"><testcase name="small"/></testsuite>'
LARGE = b'<testsuite name="s"><testcase name="large"/><system-out>' + b"x" * 300_000 + b"</system-out></testsuite>"
IN_TIME_SECONDS = 45  # more than one try with all its limits, less than CI waits


@pytest.fixture
def own_weed():
    """A server that only this test stops and starts."""
    with Weed() as weed:
        yield weed


@pytest.fixture
def at(settings: dict[str, Any]):
    """Return the settings with the spool at a server."""

    def place(weed: Weed, **store: str) -> dict[str, Any]:
        s3 = {"endpoint_url": weed.url, "region": REGION}
        keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
        spool = f"s3://{BUCKET}/{new_prefix()}spool"
        alone = {name: table for name, table in settings.items() if name != "codearts"}  # uploads say when a build ends
        return {**alone, "s3": s3 | keys, "store": settings["store"] | {"spool": spool} | store}

    return place


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=IN_TIME_SECONDS)) as session:
        yield session


def digests(sandbox: Sandbox, build_no: int) -> list[str | None]:
    """Return the digest of each report that TestNod's storage has of a build."""
    runs = sandbox.state.runs.all(f"codearts-{JOB}-{build_no}")
    return [each.sha256 for run in runs for each in run.uploads if each.sha256 is not None]


async def upload(http: aiohttp.ClientSession, gateway: GatewayProcess, content: bytes, build_no: int, **query: str):
    """Upload one report; return status, Retry-After and the answer."""
    form = aiohttp.FormData()
    form.add_field("files", content, filename="junit.xml", content_type="text/xml")
    params = {"job_id": JOB, "build_no": str(build_no), **query}
    async with http.post(gateway.server_url + UPLOAD, params=params, data=form) as answer:
        return answer.status, answer.headers.get("Retry-After"), await answer.json()


async def state_of(http: aiohttp.ClientSession, gateway: GatewayProcess, build_no: int) -> str:
    """Return the state of a build."""
    params = {"job_id": JOB, "build_no": str(build_no)}
    async with http.get(gateway.admin_url + "/api/v1/builds", params=params) as answer:
        builds = (await answer.json())["builds"]
    return builds[0]["state"] if builds else ""


async def reasons(http: aiohttp.ClientSession, gateway: GatewayProcess) -> list[str]:
    """Return why the gateway says that it is not ready."""
    async with http.get(gateway.admin_url + "/readyz") as answer:
        return (await answer.json())["reasons"]


async def delivered(http: aiohttp.ClientSession, gateway: GatewayProcess, *builds: int) -> None:
    """Wait until the runs of these builds are finalized."""

    async def all_finalized() -> bool:
        return all([await state_of(http, gateway, build_no) == "finalized" for build_no in builds])

    await until(all_finalized, "every build is finalized")


async def test_a_report_goes_through_s3_and_is_gone_from_there_when_it_is_delivered(
    weed: Weed, at, new_gateway, sandbox: Sandbox, http
):
    settings = at(weed)
    gateway = new_gateway(settings)
    await gateway.start()
    assert (await upload(http, gateway, LARGE, 1, complete="true"))[0] == 200
    await delivered(http, gateway, 1)
    assert digests(sandbox, 1) == [sha256(LARGE).hexdigest()]
    prefix = settings["store"]["spool"].removeprefix(f"s3://{BUCKET}/")
    with weed.client() as client:
        kept = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    assert [each["Key"] for each in kept if not each["Key"].endswith("/probe")] == []


@pytest.mark.timeout(600)  # a server that was stopped takes its time to find itself again
@pytest.mark.parametrize("away", ["gone", pytest.param("hanging", marks=pytest.mark.early)])
async def test_while_s3_is_away_small_reports_are_accepted_large_ones_rejected_in_time_and_all_recovers(
    own_weed: Weed, at, new_gateway, http, away
):
    gateway = new_gateway(at(own_weed))
    await gateway.start()
    assert (await upload(http, gateway, LARGE, 1, complete="true"))[0] == 200
    await delivered(http, gateway, 1)

    own_weed.stop() if away == "gone" else own_weed.pause()
    statuses = [await upload(http, gateway, LARGE, number, complete="true") for number in (2, 3)]
    assert [(status, int(retry_after) > 0) for status, retry_after, _ in statuses] == [(503, True)] * 2
    assert statuses[0][2]["error"]["code"] == "BRIDGE.UNAVAILABLE"
    assert BUCKET not in str(statuses)
    assert (await upload(http, gateway, SMALL, 4, complete="true"))[0] == 200
    await delivered(http, gateway, 4)
    [reason] = await reasons(http, gateway)
    assert reason.startswith("The spool in S3 takes no reports: ")
    assert not await gateway.ready()

    await asyncio.to_thread(own_weed.start if away == "gone" else own_weed.resume)
    await until(gateway.ready, "the gateway is ready by itself")
    assert (await upload(http, gateway, LARGE, 2, complete="true"))[0] == 200
    await delivered(http, gateway, 2)
    assert SECRET_KEY not in gateway.stderr() + gateway.stdout()
    assert "X-Amz-Signature" not in gateway.stderr() + gateway.stdout()


async def test_what_was_accepted_before_s3_went_away_is_delivered_after(
    own_weed: Weed, at, new_gateway, sandbox: Sandbox, http
):
    gateway = new_gateway(at(own_weed))
    await gateway.start()
    sandbox.state.faults.at_random("testnod.register", rate=1, answer={"status": 503}, seed=1)
    assert (await upload(http, gateway, LARGE, 1, complete="true"))[0] == 200
    own_weed.stop()
    sandbox.state.faults.clear()
    assert (await upload(http, gateway, SMALL, 2, complete="true"))[0] == 200
    await delivered(http, gateway, 2)
    await gateway.kill()
    await asyncio.to_thread(own_weed.start)
    await gateway.start()
    await delivered(http, gateway, 1)
    assert digests(sandbox, 1) == [sha256(LARGE).hexdigest()]


async def deliveries(http: aiohttp.ClientSession, gateway: GatewayProcess) -> dict[int, dict[str, Any]]:
    """Return the delivery to TestNod of the only report of each build."""
    async with http.get(gateway.admin_url + "/api/v1/builds") as answer:
        builds = (await answer.json())["builds"]
    return {build["build_no"]: build["reports"][0]["deliveries"][0] for build in builds}


async def upstreams_away(http: aiohttp.ClientSession, gateway: GatewayProcess) -> Any:
    async with http.get(gateway.admin_url + "/readyz") as answer:
        return (await answer.json())["upstreams"]


async def test_no_odd_answer_of_s3_to_a_read_loses_a_report_and_all_are_delivered_after(
    weed: Weed, at, new_gateway, sandbox: Sandbox, http
):
    kinds = dict(enumerate(KINDS.items(), 1))
    answered: dict[str, Odd] = {}

    def odd(key: str) -> Odd | None:
        """Answer the read of each blob in another way, and those of probes well: the spool is there."""
        if key.endswith("/probe"):
            return None
        return answered.setdefault(key, kinds[len(answered) % len(kinds) + 1][1])

    async with OddS3(weed.url) as s3:
        settings = at(weed)
        gateway = new_gateway(settings | {"s3": settings["s3"] | {"endpoint_url": s3.url}})
        await gateway.start()
        s3.odd = odd
        for number in kinds:
            assert (await upload(http, gateway, LARGE, number, complete="true"))[0] == 200

        async def all_looked_at_often() -> bool:
            blobs = [count for key, count in s3.reads.items() if not key.endswith("/probe")]
            return len(blobs) == len(kinds) and min(blobs) >= 3

        await until(all_looked_at_often, "each report is read again and again", seconds=60)
        shown = await deliveries(http, gateway)
        assert {each["state"] for each in shown.values()} == {"pending"}
        assert [each["last_error"] for each in shown.values() if "pool" not in each["last_error"]] == []
        assert "storage" not in str(await upstreams_away(http, gateway))
        prefix = settings["store"]["spool"].removeprefix(f"s3://{BUCKET}/")
        with weed.client() as client:
            kept = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        assert sum("/20" in each["Key"] for each in kept) == len(kinds)
        assert not any("/aside/" in each["Key"] for each in kept)

        s3.odd = lambda _key: None
        await delivered(http, gateway, *kinds)
        for number in kinds:
            assert digests(sandbox, number) == [sha256(LARGE).hexdigest()]
    assert "X-Amz-Signature" not in gateway.stderr() + gateway.stdout()


@pytest.mark.early
@pytest.mark.parametrize("kind", ["403", "404 NoSuchBucket", "404 page", "404 NoSuchKey", "206 flipped"])
async def test_a_spool_that_takes_reports_and_returns_none_is_named_with_s3s_reason_and_takes_no_more(
    weed: Weed, at, new_gateway, sandbox: Sandbox, http, kind
):
    async with OddS3(weed.url) as s3:
        settings = at(weed)
        gateway = new_gateway(settings | {"s3": settings["s3"] | {"endpoint_url": s3.url}})
        await gateway.start()
        s3.odd = lambda _key: KINDS[kind]
        assert (await upload(http, gateway, LARGE, 1, complete="true"))[0] == 200  # read back within the last minute

        async def red() -> bool:
            return any(reason.startswith("The spool (s3://") for reason in await reasons(http, gateway))

        await until(red, "readiness names the spool", seconds=60)
        assert not await gateway.ready()
        assert (await upload(http, gateway, LARGE, 2, complete="true"))[0] == 503
        assert (await upload(http, gateway, SMALL, 3, complete="true"))[0] == 200
        await delivered(http, gateway, 3)
        [reason] = await reasons(http, gateway)
        unreadable = f"The spool ({settings['store']['spool']}) cannot be read: "

        async def spool_is_blamed() -> bool:
            """Return whether the report was read since the probe that failed: before it, the report is in doubt."""
            return (await deliveries(http, gateway))[1]["last_error"].startswith(unreadable)

        if kind != "206 flipped":
            assert kind.split(" ", maxsplit=1)[0] in reason
            await until(spool_is_blamed, "the report's last error names the spool", seconds=60)
        shown = (await deliveries(http, gateway))[1]
        assert shown["state"] == "pending"
        if kind == "403":
            assert "403 AccessDenied It is so. Check the key's right to GetObject." in shown["last_error"]
        assert "storage" not in str(await upstreams_away(http, gateway))
        assert "report_unreadable" in gateway.stderr()

        s3.odd = lambda _key: None
        await delivered(http, gateway, 1)
        await until(gateway.ready, "the gateway is ready by itself", seconds=60)
        assert digests(sandbox, 1) == [sha256(LARGE).hexdigest()]


async def test_a_spool_whose_reads_hang_delays_no_small_report_and_opens_no_breaker(weed: Weed, at, new_gateway, http):
    large, small = range(1, 21), range(21, 31)
    async with OddS3(weed.url) as s3:
        settings = at(weed)
        gateway = new_gateway(settings | {"s3": settings["s3"] | {"endpoint_url": s3.url}})
        await gateway.start()
        s3.hangs = True
        for number in large:
            assert (await upload(http, gateway, LARGE, number, complete="true"))[0] in (200, 503)
        for number in small:
            assert (await upload(http, gateway, SMALL, number, complete="true"))[0] == 200
        await delivered(http, gateway, *small)
        shown = await deliveries(http, gateway)
        owed = [number for number in large if number in shown]
        assert owed
        assert {shown[number]["state"] for number in owed} == {"pending"}
        assert "storage" not in str(await upstreams_away(http, gateway))
        s3.hangs = False
        await delivered(http, gateway, *owed)


@pytest.mark.parametrize("kind", ["disk", "s3"])
async def test_a_delivered_report_is_copied_and_can_be_downloaded(weed, at, new_gateway, http, tmp_path, kind):
    archive = str(tmp_path / "archive") if kind == "disk" else f"s3://{BUCKET}/{new_prefix()}archive"
    gateway = new_gateway(at(weed, archive=archive))
    await gateway.start()
    for number, content in ((1, LARGE), (2, SMALL)):
        assert (await upload(http, gateway, content, number, complete="true"))[0] == 200
    for number, content in ((1, LARGE), (2, SMALL)):
        await until(lambda number=number: archived(http, gateway, number), "the copy is kept")
        async with http.get(f"{gateway.admin_url}/api/v1/reports/{number}/file") as answer:
            assert (answer.status, await answer.read()) == (200, content)
            assert f"report-{number}-junit.xml" in answer.headers["Content-Disposition"]
    assert "X-Amz-Signature" not in gateway.stderr() + gateway.stdout()


@pytest.mark.timeout(600)  # a server that was stopped takes its time to find itself again
async def test_an_archive_that_is_away_holds_nothing_back_and_gets_its_copies_later(
    own_weed, at, new_gateway, http, tmp_path
):
    here = str(tmp_path / "here")
    gateway = new_gateway(at(own_weed, spool=here, archive=f"s3://{BUCKET}/archive"))
    await gateway.start()
    own_weed.stop()
    for number in (1, 2, 3, 4):
        assert (await upload(http, gateway, LARGE, number, complete="true"))[0] == 200
    await delivered(http, gateway, 1, 2, 3, 4)
    await until(gateway.ready, "the gateway is ready all the same")
    assert not any([await archived(http, gateway, number) for number in (1, 2, 3, 4)])
    await asyncio.to_thread(own_weed.start)
    for number in (1, 2, 3, 4):
        await until(lambda number=number: archived(http, gateway, number), "the copy is kept", seconds=90)


async def archived(http: aiohttp.ClientSession, gateway: GatewayProcess, report_id: int) -> bool:
    """Tell whether the archive has a copy of the report."""
    url = f"{gateway.admin_url}/api/v1/reports/{report_id}/file"
    async with http.get(url, allow_redirects=False) as answer:
        return answer.status in (200, 302)
