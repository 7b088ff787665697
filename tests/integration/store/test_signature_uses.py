"""Used signatures in the ledger: one body each, for as long as they are valid."""

import asyncio

from sqlalchemy import func, select

from bridge.store.schema import signature_uses
from bridge.store.signature_uses import EXPIRED_PER_COMMIT, SignatureUse, record_signature_uses

ONE, TWO = b"1" * 32, b"2" * 32


def use(key: int, body: bytes, until: int) -> SignatureUse:
    return SignatureUse(signature_key=key.to_bytes(32), body_sha256=body, kept_until=until)


async def test_a_signature_serves_the_body_it_came_with_first_and_no_other(ledger, clock):
    until, write = clock.now() + 10, ledger.database.write
    assert await write(record_signature_uses, use(1, ONE, until)) == ONE
    assert await write(record_signature_uses, use(1, ONE, until)) == ONE
    assert await write(record_signature_uses, use(1, TWO, until)) == ONE
    assert await write(record_signature_uses, use(2, TWO, until)) == TWO


async def test_of_two_bodies_at_once_one_is_accepted(ledger, clock):
    uses = [use(1, body, clock.now() + 10) for body in (ONE, TWO)]
    recorded = await asyncio.gather(*(ledger.database.write(record_signature_uses, one) for one in uses))
    assert recorded[0] == recorded[1]


async def test_only_uses_that_are_valid_remain(ledger, clock):
    for number in range(3 * EXPIRED_PER_COMMIT // 2):
        await ledger.database.write(record_signature_uses, use(number, ONE, clock.now() + 10))
    clock.advance(11)
    for number in (1000, 1001):
        await ledger.database.write(record_signature_uses, use(number, ONE, clock.now() + 10))
    assert await ledger.rows(select(func.count()).select_from(signature_uses)) == [(2,)]
