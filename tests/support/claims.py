"""A record of every claim, written by a trigger in PostgreSQL: the new owner, and until when the last lease held."""

from collections import defaultdict
from dataclasses import dataclass

import asyncpg

RECORD = """
CREATE TABLE claims (build_id bigint, fencing_token bigint, owner text, at bigint, leased_until bigint);
CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO claims VALUES (
    NEW.id, NEW.fencing_token, NEW.lease_owner,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, OLD.lease_until);
  RETURN NEW;
END $$;
CREATE TRIGGER note_claim BEFORE UPDATE ON builds FOR EACH ROW WHEN (NEW.fencing_token <> OLD.fencing_token)
  EXECUTE FUNCTION note_claim();
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One claim, and until when the owner before it held the build."""

    build_id: int
    fencing_token: int
    owner: str
    at: int
    leased_until: int | None


async def note_claims(url: str) -> None:
    """Have the database write down every claim from now on."""
    connection = await asyncpg.connect(url)
    await connection.execute(RECORD)
    await connection.close()


async def claims(url: str) -> list[Claim]:
    """Return what was written down, build by build, in the order of the fencing tokens."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT * FROM claims ORDER BY build_id, fencing_token")
    await connection.close()
    return [Claim(**dict(row)) for row in rows]


def assert_one_owner_at_a_time(found: list[Claim], *, builds: int) -> None:
    """Fail if a build was claimed under another owner's lease, twice under one fencing token, or never."""
    assert [claim for claim in found if (claim.leased_until or 0) > claim.at] == []
    fences = defaultdict(list)
    for claim in found:
        fences[claim.build_id].append(claim.fencing_token)
    assert {build: got for build, got in fences.items() if got != list(range(1, len(got) + 1))} == {}
    assert len(fences) == builds
