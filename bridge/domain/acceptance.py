"""What intake hands to the ledger, and what the ledger answers: the counter of the post office, as values.

It knows neither HTTP nor the database. Names are raw here, exactly as they came; the ledger escapes and cuts them.
"""

from dataclasses import dataclass
from enum import StrEnum

from bridge.domain.build import Said
from bridge.domain.junit import Counts


class Receipt(StrEnum):
    """What the ledger made of one report."""

    NEW = "new"
    KNOWN = "known"  # the same report was accepted before: nothing changes
    OWED_AGAIN = "owed_again"  # the same report was accepted before and its delivery is dead


@dataclass(frozen=True, kw_only=True, slots=True)
class NewReport:
    """A report whose bytes are at hand: small ones in `body`, others in the spool under `blob`."""

    name: str
    node_id: str
    size: int  # bytes as received
    sent_size: int  # bytes at hand: other than received where it was unpacked, repaired or stripped
    received_sha256: str
    sent_sha256: str
    counts: Counts
    changes: tuple[str, ...] = ()  # what repairing and stripping did: sentences for people
    notes: tuple[str, ...] = ()  # what else is worth knowing
    body: bytes | None = None
    blob: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRefusal:
    """A file, or a whole request (`name` empty), that was not accepted."""

    name: str
    reason: str  # both sentences, as CI was told
    code: str  # from errors.py


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance:
    """One upload request after it was read and checked."""

    job_id: str
    build_no: int
    said: Said
    complete: bool
    caller: str
    caller_routes: tuple[str, ...] | None  # None = any route
    address: str
    request_id: str
    reports: tuple[NewReport, ...]
    refusals: tuple[NewRefusal, ...]
