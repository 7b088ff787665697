"""Callers that stall, or that are not verified yet, keep no other caller out."""

import asyncio
import hashlib

import pytest

from bridge.domain.callers import AccessKey, AuthScheme, Caller
from bridge.protocols import aksk_signing
from bridge.server.auth.authenticator import Authenticator
from bridge.server.auth.signatures import Lockout, SignatureVerifier
from bridge.server.http.requests import STALL_SECONDS
from bridge.server.proxy.places import MAX_CALLS, MAX_OF_ORIGIN, MAX_UNVERIFIED
from bridge.server.proxy.request_target import Upstream as Service
from tests.integration.server.proxy.conftest import CREDENTIALS
from tests.integration.server.proxy.test_authorization_on_the_wire import BUILD_INFO, CI, error_of, status_of
from tests.support.loop_clock import LOOK_SECONDS, LoopClock
from tests.support.proxy_upstream import OK, get, read_request

LOGIN = "/v3/auth/tokens"
STALLED_LOGIN = get(LOGIN, "Content-Length: 100000", method="POST", body=b"{")
GOOD_LOGIN = get(LOGIN, "Content-Length: 2", method="POST", body=b"{}")
DRIP_SECONDS = 14.0
NOW = 1_800_000_000_000_000
KEY = AccessKey(
    access_key="AKSHOP",
    secret_key="canary-sk",
    caller=Caller(scheme=AuthScheme.AKSK, name="shop", routes=("shop",), scopes=frozenset({"proxy"})),
    expires_at=None,
)


class Crowd:
    """Connections that each send a request whose body never ends, and what they were answered."""

    def __init__(self, url):
        self._host, _, self._port = url.removeprefix("http://").rpartition(":")
        self._writers = []
        self.answers = []

    async def join(self, request, *, source="127.0.0.1"):
        reader, writer = await asyncio.open_connection(self._host, int(self._port), local_addr=(source, 0))
        self._writers.append(writer)
        writer.write(request)
        self.answers.append(asyncio.create_task(read_request(reader)))

    def drip(self):
        for writer in self._writers:
            writer.write(b"x")

    @property
    def _pending(self):
        return [answer for answer in self.answers if not answer.done()]

    @property
    def cut(self):
        return sum(answer.done() for answer in self.answers)

    async def cut_at_least(self, number):
        while self.cut < number:
            await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)

    def leave(self):
        for answer in self.answers:
            answer.cancel()
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def crowd_of():
    crowds = []

    def made(proxied):
        crowds.append(Crowd(proxied.url))
        return crowds[-1]

    yield made
    for crowd in crowds:
        crowd.leave()


@pytest.fixture
def signed():
    """Authenticate by token and by signature, with one access key."""
    return Authenticator(
        CREDENTIALS,
        now=lambda: NOW,
        signatures=SignatureVerifier([KEY], now=lambda: NOW, lockout=Lockout(lambda: NOW), record_use=_recorded),
    )


async def _recorded(use):
    return use.body_sha256


def signed_call(body, *, secret=KEY.secret_key, length=None, unsigned=False):
    """Return a POST with a signature of `secret`; its body never ends if `length` is more than it has."""
    request = aksk_signing.RawRequest(method="POST", path=BUILD_INFO, headers=(("Host", "bridge.example"),))
    digest = aksk_signing.UNSIGNED_PAYLOAD if unsigned else hashlib.sha256(body).hexdigest()
    pair = aksk_signing.AccessKeyPair(access_key=KEY.access_key, secret_key=secret)
    lines = [f"{name}: {value}" for name, value in aksk_signing.sign(request, pair, at=NOW, payload_sha256=digest)]
    return get(BUILD_INFO, *lines, f"Content-Length: {length or len(body)}", method="POST", body=body)


async def arrived(upstream, number):
    while upstream.connections < number:  # noqa: ASYNC110 -- the upstream sets no event
        await asyncio.sleep(LOOK_SECONDS)


async def test_a_login_gets_in_while_others_never_end(start, crowd_of):
    proxied = await start()
    iam, crowd = proxied.upstreams[Service.IAM], crowd_of(proxied)
    iam.script = _answers_whole
    for number in range(MAX_OF_ORIGIN):
        await crowd.join(STALLED_LOGIN)
        await arrived(iam, number + 1)

    assert status_of(await proxied.ask(GOOD_LOGIN)) == 200

    answer = await crowd.answers[0]  # the one that had been sending the longest made way
    assert (status_of(answer), error_of(answer)) == (503, "BRIDGE.UNAVAILABLE")
    assert crowd.cut == 1


async def test_logins_of_many_addresses_that_never_end_keep_no_other_address_out(start, crowd_of):
    proxied = await start()
    iam, crowd = proxied.upstreams[Service.IAM], crowd_of(proxied)
    iam.script = _answers_whole
    for number in range(MAX_UNVERIFIED):
        await crowd.join(STALLED_LOGIN, source=f"127.0.0.{2 + number % 8}")
        await arrived(iam, number + 1)

    assert status_of(await proxied.ask(GOOD_LOGIN)) == 200
    await crowd.cut_at_least(1)
    assert crowd.cut == 1


async def test_whole_logins_of_one_address_leave_places_for_others(start, crowd_of):
    proxied = await start()
    iam, crowd = proxied.upstreams[Service.IAM], crowd_of(proxied)
    answering = asyncio.Event()

    async def waits(reader, writer):
        await read_request(reader)
        await answering.wait()
        writer.write(OK)

    iam.script = waits
    for number in range(MAX_OF_ORIGIN):
        await crowd.join(GOOD_LOGIN, source="127.0.0.2")
        await arrived(iam, number + 1)
    more, other = crowd_of(proxied), crowd_of(proxied)
    await more.join(GOOD_LOGIN, source="127.0.0.2")
    refused = await more.answers[0]
    await other.join(GOOD_LOGIN)
    await arrived(iam, MAX_OF_ORIGIN + 1)
    answering.set()

    assert (status_of(refused), error_of(refused)) == (503, "BRIDGE.UNAVAILABLE")
    assert {status_of(await answer) for answer in [*crowd.answers, *other.answers]} == {200}


async def test_callers_of_an_open_bridge_that_stall_keep_no_verified_caller_out(start, crowd_of):
    proxied = await start(open_to_all=True)
    build, crowd = proxied.upstreams[Service.BUILD], crowd_of(proxied)
    build.script = _answers_whole
    for number in range(MAX_UNVERIFIED):
        stalled = get("/v1/any", "Content-Length: 5", method="POST", body=b"a")
        await crowd.join(stalled, source=f"127.0.0.{2 + number % 8}")
        await arrived(build, number + 1)

    answers = await asyncio.gather(*(proxied.ask(get(BUILD_INFO, CI)) for _ in range(MAX_CALLS)))

    assert {status_of(answer) for answer in answers} == {200}
    assert crowd.cut == 0
    assert status_of(await proxied.ask(get("/v1/any"))) == 200  # in the place of one that stalls


@pytest.mark.parametrize(
    "request_",
    [
        STALLED_LOGIN,
        get(BUILD_INFO, CI, "Content-Length: 999", method="POST", body=b"{"),
        get(BUILD_INFO, CI, "Transfer-Encoding: chunked", method="POST", body=b"3e7\r\n{"),
        get("/v1/any", "Content-Length: 999", method="POST", body=b"{"),
    ],
    ids=["login", "verified", "chunked", "open"],
)
async def test_a_body_that_drips_is_cut_and_its_place_is_freed(start, crowd_of, request_):
    clock = LoopClock()
    proxied = await start(open_to_all=True, methods=["POST"])
    crowd = crowd_of(proxied)
    await crowd.join(request_)
    elapsed = 0

    def drip():
        nonlocal elapsed
        elapsed += 1
        if elapsed % int(DRIP_SECONDS) == 0:
            crowd.drip()
        return crowd.cut == 1

    async with asyncio.timeout(2 * STALL_SECONDS):
        await clock.pass_until(drip, 1.0)

    answer = await crowd.answers[0]
    assert (status_of(answer), error_of(answer)) == (503, "BRIDGE.UNAVAILABLE")


@pytest.mark.parametrize("unsigned", [False, True], ids=["guessed", "replayed"])
async def test_signed_bodies_that_never_end_take_no_place_of_a_proven_caller(start, crowd_of, signed, unsigned):
    proxied = await start(callers=signed, methods=["GET", "POST"])
    crowd = crowd_of(proxied)
    secret = KEY.secret_key if unsigned else "made-up"
    for number in range(MAX_CALLS + 8):
        await crowd.join(
            signed_call(b"{", secret=secret, length=1000 + number, unsigned=unsigned),
            source=f"127.0.0.{2 + number % 8}",
        )
    await crowd.cut_at_least(8)

    answers = await asyncio.gather(*(proxied.ask(get(BUILD_INFO, CI)) for _ in range(MAX_CALLS)))
    assert {status_of(answer) for answer in answers} == {200}
    assert status_of(await proxied.ask(signed_call(b"{}"))) == 200  # with the key that the others name
    assert proxied.upstreams[Service.BUILD].body == b"{}"


async def _answers_whole(reader, writer):
    while await read_request(reader):
        writer.write(OK)
