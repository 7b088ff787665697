"""An upload handler with a real spool and a ledger that only records uploads."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestServer

from bridge.domain.callers import AuthScheme, Caller, Credential, hash_token
from bridge.domain.intake import AcceptedUpload, ReportReceipt, UploadReceipt
from bridge.domain.junit.rewrite_rules import RewriteRule
from bridge.domain.routing import InvalidFilePolicy, Route
from bridge.errors import CommitUncertain, Unavailable
from bridge.server.compression.decompress import DecompressionMemory
from bridge.server.upload.file_store import Quarantine, UploadLimits
from bridge.server.upload.resender import QuarantineResender
from bridge.server.validation.pool import ValidationPool
from bridge.store.blobs.disk import DiskSpool
from bridge.store.engine.base import Database
from bridge.store.uploads import accept

JOB = "a1" * 16
OTHER_JOB = "b2" * 16
REPAIR_JOB, STRIP_JOB, BOTH_JOB, REWRITE_JOB = "e5" * 16, "f6" * 16, "07" * 16, "08" * 16
KEEP_US = 7 * 24 * 3600 * 1_000_000
MAX_REPORT, MAX_REQUEST, MAX_FILES = 600_000, 3_000_000, 30
BOUNDARY = "b0undary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

GOOD = b'<testsuite name="s"><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>'
NOT_XML = b"<testsuite><testcase></testsuite>"
NOT_JUNIT = b"<html><body>Sign in</body></html>"


def large(size: int) -> bytes:
    start, end = b'<testsuite name="s"><testcase name="a"><system-out>', b"</system-out></testcase></testsuite>"
    return start + b"x" * (size - len(start) - len(end)) + end


def form(*files: tuple[str, bytes], headers: str = "", **fields: str) -> bytes:
    """Return a form with `headers` in each file's part."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    body = "".join(parts).encode()
    for name, content in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n{headers}\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


@dataclass
class UploadServer:
    """What the handler wrote to the ledger, and how its collaborators behave."""

    root: Path
    uploads: list[AcceptedUpload] = field(default_factory=list)
    receipts: dict[str, ReportReceipt] = field(default_factory=dict)
    freed: tuple[str, ...] = ()
    ledger_fails: bool = False
    commit_is_lost: bool = False
    quarantine_full: bool = False
    admitting: bool = True
    room: int = 1 << 40
    events: list[tuple[str, object]] = field(default_factory=list)
    closed: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    listener: TestServer | None = None
    memory: DecompressionMemory = field(default_factory=DecompressionMemory)

    async def accept(self, upload: AcceptedUpload) -> UploadReceipt:
        if self.ledger_fails:
            raise Unavailable("The ledger cannot be written. Send it again in a while.")
        self.uploads.append(upload)
        if self.commit_is_lost:
            raise CommitUncertain("It is not known whether this was stored. Send it again.")
        receipts = tuple(self.receipts.get(report.name, ReportReceipt.NEW) for report in upload.reports)
        return UploadReceipt(receipts=receipts, freed=self.freed)

    def admit(self) -> None:
        if not self.admitting:
            raise Unavailable("The bridge is stopping. Send it again in a while.")

    def take(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise Unavailable("The bridge is short of disk space. Send it again in a while.")

    def keep(self, _size: int) -> None:
        """Reserve space for the quarantine."""
        if self.quarantine_full:
            raise Unavailable("The bridge is short of disk space. Send it again in a while.")

    def count_accepted(self, n: int) -> None:
        self.events.append(("accepted", n))

    def count_duplicates(self, n: int) -> None:
        self.events.append(("known", n))

    def count_rejection(self, code: str) -> None:
        self.events.append(("refused", code))

    @property
    def blobs(self) -> list[str]:
        """The blobs in the ledger, sorted: of reports and of rejected files."""
        kept = [
            refusal.quarantined.blob for upload in self.uploads for refusal in upload.rejections if refusal.quarantined
        ]
        blobs = [*(report.blob for upload in self.uploads for report in upload.reports), *kept]
        return sorted(blob for blob in blobs if blob is not None)

    @property
    def spooled(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


ROUTES = [
    Route(name="repair", job_id=(REPAIR_JOB,), repair=True),
    Route(name="strip", job_id=(STRIP_JOB,), strip=("properties", "system-out")),
    Route(
        name="rewrite",
        job_id=(REWRITE_JOB,),
        strip=("system-out",),
        rewrite=(RewriteRule(attribute="name", pattern=r" at [0-9:]+$"),),
    ),
    Route(name="both", job_id=(BOTH_JOB,), repair=True, strip=("properties", "system-out")),
    Route(name="shop", job_id=(JOB,)),
    Route(name="lenient", job_id=("c3*",), on_invalid=InvalidFilePolicy.WARN),
    Route(name="by-branch", job_id=("d4*",), branch=("main",)),
]
CALLERS = [
    Credential(
        hash=hash_token("any"),
        caller=Caller(scheme=AuthScheme.TOKEN, name="any", routes=None, scopes=frozenset({"upload"})),
    ),
    Credential(
        hash=hash_token("ended"),
        caller=Caller(scheme=AuthScheme.TOKEN, name="ended", routes=None, scopes=frozenset({"upload"})),
        expires_at=0,
    ),
    Credential(
        hash=hash_token("bound"),
        caller=Caller(scheme=AuthScheme.TOKEN, name="bound", routes=("lenient",), scopes=frozenset({"upload"})),
    ),
    Credential(
        hash=hash_token("reader"),
        caller=Caller(scheme=AuthScheme.TOKEN, name="reader", routes=None, scopes=frozenset({"status"})),
    ),
]


def new_resender(database: Database, spool: DiskSpool, checker: ValidationPool, **other: Any) -> QuarantineResender:
    """Return a resender with a real ledger; `other` replaces the usual arguments."""

    async def write(upload: AcceptedUpload) -> UploadReceipt:
        return await database.write(accept, upload, upload.body_size)

    usual: dict[str, Any] = {
        "quarantine": Quarantine(keep_us=KEEP_US, reserve_space=lambda _: None),
        "routes": ROUTES,
        "limits": UploadLimits(max_report_size=MAX_REPORT, max_request_size=MAX_REQUEST, max_files=MAX_FILES),
        "accept": write,
        "admit": lambda: None,
        "reserve_space": lambda _: None,
    }
    return QuarantineResender(database=database, spool=spool, pool=checker, **(usual | other))
