"""What callers are told of their builds, over real sockets and before a real ledger."""

import pytest
from aiohttp import web

from bridge.domain.build import UploadMetadata
from bridge.domain.callers import SCOPES, AuthScheme, Caller, Credential, hash_token
from bridge.server.auth.authenticator import Authenticator
from bridge.server.build_status import STATUS_PATH, BuildStatusHandler
from bridge.server.http.responses import handle_errors
from bridge.store.queries import find_build, one_build
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, refusal, report

JOB = "a" * 32


def credential(name, *, routes=None, scopes=SCOPES):
    return Credential(
        hash=hash_token(name), caller=Caller(scheme=AuthScheme.TOKEN, name=name, routes=routes, scopes=scopes)
    )


CALLERS = Authenticator(
    [
        credential("anybody"),
        credential("shop", routes=("shop",)),
        credential("other", routes=("other",)),
        credential("uploader", scopes=frozenset({"upload"})),
    ],
    now=FakeClock().now,
)


@pytest.fixture
async def ask(aiohttp_client, database, ledger):
    """Ask for builds of the job.

    1 is pinned to the route shop, 2 is not pinned yet, 4 is neither and was uploaded to by shop among others, and of 5
    every upload was refused.
    """
    await ledger.accept(report())
    await ledger.run_parameters(await ledger.claimed(), "shop")
    await ledger.accept(report(), build_no=2, rejections=(refusal(),))
    await ledger.accept(report("theirs.xml"), build_no=4, rejections=(refusal(),))
    await ledger.accept(report(), build_no=4, caller="shop", caller_routes=("shop",))
    await ledger.accept(build_no=5, rejections=(refusal("theirs.xml"),))
    await ledger.accept(build_no=5, rejections=(refusal("mine.xml"),), caller="shop", caller_routes=("shop",))
    app = web.Application(middlewares=[handle_errors])
    app.router.add_get(STATUS_PATH, BuildStatusHandler(database=database, authenticator=CALLERS).show)
    client = await aiohttp_client(app)

    async def get(token, build_no=1, job_id=JOB):
        answer = await client.get(f"/bridge/v1/builds/{job_id}/{build_no}", headers={"X-Auth-Token": token})
        return answer.status, await answer.json()

    return get


@pytest.mark.parametrize("caller", ["anybody", "shop"])
async def test_a_caller_sees_the_same_build_as_the_api(ask, database, caller):
    status, body = await ask(caller)
    assert status == 200
    assert body == await database.read(one_build, 1)


@pytest.mark.parametrize(
    ("caller", "build_no", "status", "code"),
    [
        ("nobody", 1, 401, "APIGW.0301"),
        ("uploader", 1, 403, "APIGW.0302"),
        ("other", 1, 404, "BRIDGE.NOT_FOUND"),
        ("shop", 2, 404, "BRIDGE.NOT_FOUND"),  # not pinned yet, and nothing in it is theirs
        ("anybody", 2, 200, None),
        ("shop", 4, 200, None),
        ("other", 4, 404, "BRIDGE.NOT_FOUND"),
        ("other", 5, 404, "BRIDGE.NOT_FOUND"),
        ("anybody", 3, 404, "BRIDGE.NOT_FOUND"),
        ("anybody", 0, 400, "CB.00060200"),
    ],
)
async def test_each_caller_is_told_how_it_stands(ask, caller, build_no, status, code):
    found, body = await ask(caller, build_no)
    assert (found, body.get("error_code")) == (status, code)


async def test_before_the_route_is_known_a_bound_caller_sees_its_own_reports_only(ask, database):
    whole = await database.read(find_build, JOB, 4)
    status, body = await ask("shop", 4)
    assert (status, [report["caller"] for report in body["reports"]], body["rejections"]) == (200, ["shop"], [])
    assert {**body, "reports": whole["reports"], "rejections": whole["rejections"]} == whole


async def test_before_the_route_is_known_a_bound_caller_sees_nothing_that_others_state(ask, database):
    ledger, theirs = Ledger(database), UploadMetadata(branch="their/plan", commit="f00d" * 10)
    await ledger.accept(report(), build_no=7, caller="other", caller_routes=("other",), upload_metadata=theirs)
    await ledger.accept(report("mine.xml"), build_no=7, caller="shop", caller_routes=("shop",))
    _, body = await ask("anybody", 7)
    assert (body["branch"], body["commit"]) == (theirs.branch, theirs.commit)
    status, body = await ask("shop", 7)
    assert (status, body["branch"], body["commit"]) == (200, None, None)


async def test_a_build_of_a_route_shows_no_report_of_a_caller_of_another_one(ask, database):
    ledger = Ledger(database)
    await ledger.accept(report("ours.xml"), build_no=6, caller="shop", caller_routes=("shop",))
    await ledger.accept(report("theirs.xml"), build_no=6, caller="other", caller_routes=("other",))
    while (visit := await ledger.claimed()).build.build_no != 6:
        pass
    await ledger.run_parameters(visit, "shop")
    for caller in ("shop", "anybody"):
        status, body = await ask(caller, 6)
        assert (status, [each["name"] for each in body["reports"]]) == (200, ["ours.xml"])
    assert (await ask("other", 6))[0] == 404


@pytest.mark.parametrize(("caller", "names"), [("shop", ["mine.xml"]), ("anybody", ["theirs.xml", "mine.xml"])])
async def test_where_nothing_was_accepted_bound_callers_see_their_own_refusals(ask, caller, names):
    status, body = await ask(caller, 5)
    assert (status, body["id"], body["state"], body["accepted_at"], body["reports"]) == (200, None, "open", None, [])
    assert [told["name"] for told in body["rejections"]] == names


async def test_a_refused_build_has_every_field_of_a_build(ask):
    _, refused = await ask("anybody", 5)
    _, accepted = await ask("anybody", 1)
    assert list(refused) == list(accepted)


async def test_a_build_of_another_caller_looks_like_one_that_is_not_there(ask):
    _, theirs = await ask("other", 1)
    _, absent = await ask("other", 3)
    assert theirs["error_msg"].replace("build 1", "build 3") == absent["error_msg"]
