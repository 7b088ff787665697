import pytest
from aiohttp.test_utils import make_mocked_request

from bridge.domain.callers import AccessKey, AuthScheme, Caller
from bridge.domain.instants import SECOND
from bridge.errors import Unauthenticated
from bridge.protocols import aksk_signing
from bridge.server.auth.signatures import LOCKOUT_US, MAX_FAILURES, MAX_PAIRS, Lockout, SignatureVerifier
from tests.support.fake_clock import FakeClock

HERE, THERE = "192.0.2.1", "192.0.2.2"
NOW = 1_800_000_000_000_000


def failing(lockout, times, *, key="AK", address=HERE):
    for _ in range(times):
        lockout.count_failure(key, address)


def test_a_key_is_locked_after_more_than_five_failures_and_only_for_the_address_that_failed():
    lockout = Lockout(FakeClock().steady)
    failing(lockout, MAX_FAILURES)
    assert not lockout.is_locked("AK", HERE)

    failing(lockout, 1)

    assert lockout.is_locked("AK", HERE)
    assert not lockout.is_locked("AK", THERE)
    assert not lockout.is_locked("OTHER", HERE)


def test_a_lock_ends_by_itself_and_what_came_before_is_forgotten():
    clock = FakeClock()
    lockout = Lockout(clock.steady)
    failing(lockout, MAX_FAILURES + 1)
    clock.advance(LOCKOUT_US)
    assert not lockout.is_locked("AK", HERE)

    failing(lockout, 1)

    assert not lockout.is_locked("AK", HERE)


def test_a_clock_that_is_set_back_lengthens_no_lock():
    clock = FakeClock()
    lockout = Lockout(clock.steady)
    failing(lockout, MAX_FAILURES + 1)
    clock.advance(-48 * 3600 * SECOND)
    assert lockout.is_locked("AK", HERE)

    clock.advance(LOCKOUT_US)
    assert not lockout.is_locked("AK", HERE)


def test_a_success_forgets_failures():
    lockout = Lockout(FakeClock().steady)
    failing(lockout, MAX_FAILURES)
    lockout.clear("AK", HERE)
    failing(lockout, MAX_FAILURES)
    assert not lockout.is_locked("AK", HERE)


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first():
    lockout = Lockout(FakeClock().steady)
    failing(lockout, MAX_FAILURES + 1)
    for number in range(MAX_PAIRS):
        assert lockout.is_locked("AK", HERE)
        lockout.count_failure(f"AK{number}", THERE)
    assert not lockout.is_locked("AK", HERE)


async def test_a_signature_that_is_used_over_and_over_is_written_once():
    recorded = []

    async def record_use(use):
        recorded.append(use)
        return use.body_sha256

    caller = Caller(scheme=AuthScheme.AKSK, name="sdk", routes=None, scopes=frozenset())
    key = AccessKey(access_key="AK", secret_key="canary", caller=caller)
    verifier = SignatureVerifier([key], now=lambda: NOW, lockout=Lockout(lambda: NOW), record_use=record_use)
    unsigned = aksk_signing.RawRequest(method="POST", path="/", headers=(("Host", HERE),))
    pair = aksk_signing.AccessKeyPair(access_key="AK", secret_key="canary")
    headers = aksk_signing.sign(unsigned, pair, at=NOW, payload_sha256=aksk_signing.UNSIGNED_PAYLOAD)
    request = make_mocked_request("POST", "/", headers={"Host": HERE, **dict(headers)})
    for _ in range(3):
        _, body = await verifier.identify(request)
        body.feed(b"another body")
        with pytest.raises(Unauthenticated, match="used with another body"):
            await body.finish()
    (use,) = recorded
    # The signature is valid for half of this time; the ledger's clock may be as far from this gateway's.
    assert use.kept_until == NOW + 2 * aksk_signing.MAX_SKEW_US
