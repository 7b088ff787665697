"""What passes by is used: small answers about builds are read on their way, and leave a hint in the ledger.

It knows no upstream and decides nothing: a hint makes the bridge look sooner, fills what nobody has told it yet, or
saves it a call of its own.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import structlog

from bridge.client.passthrough import ProxyResponse
from bridge.domain.outcomes import BuildInfo, CheckReportFetched, RecordFetched
from bridge.errors import BridgeError, Unavailable
from bridge.protocols.codearts_build import read_build_info, read_record_info
from bridge.protocols.codearts_check import read_refresh, subject_of_refresh
from bridge.protocols.http_response import HttpResponse
from bridge.server.compression.codecs import content_codings
from bridge.server.compression.decompress import DecompressionPipeline
from bridge.server.http.parameters import MAX_BUILD_NO
from bridge.server.proxy.headers import first
from bridge.server.proxy.request_target import RequestTarget, Upstream
from bridge.store.engine.base import Database
from bridge.store.hints import PollRequest, SeenRecord, fill_record, request_poll
from bridge.store.overheard_checks import HeardCheck, note_check

MAX_HEARD_BYTES: Final = 64 * 1024
"""Of one answer, as it comes and unfolded: a record has some KB. Larger ones pass by unread."""

_log = structlog.get_logger(__name__)


class Kind(Enum):
    """Answers that are worth reading."""

    BUILD_INFO = "build-info"
    RECORD_INFO = "record-info"


_CHECK_REFRESH: Final = re.compile(r"/v1/jobs/([^/]{1,128})/result/refresh")

_PATHS: Final = (
    (Kind.BUILD_INFO, re.compile(r"/v1/job/([0-9A-Za-z]{32})/([0-9]{1,10})/build-info")),
    (Kind.RECORD_INFO, re.compile(r"/v1/record/([0-9A-Za-z]{32})/([0-9]{1,10})/record-info")),
    (Kind.RECORD_INFO, re.compile(r"/v4/jobs/([0-9A-Za-z]{32})/([0-9]{1,10})/record-info")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Which answer about which build this is."""

    kind: Kind
    job_id: str
    build_no: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckSubject:
    """The answer is the report of CodeArts Check that `name` stands for, as of QualityRules.subject."""

    name: str
    heard_at: int  # microseconds UTC by the ledger's clock


class Heard:
    """One answer as far as it has passed by; nothing is kept of those without a subject, nor of those too large."""

    def __init__(self, subject: Subject | CheckSubject | None = None, encoding: str | None = None) -> None:
        self.subject = subject
        self._encoding = encoding
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body as it came."""
        if self.subject is None:
            return
        self._size += len(piece)
        if self._size > MAX_HEARD_BYTES:
            self.subject = None
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def body(self) -> bytes | None:
        """Return the whole body unfolded, None where it cannot be."""
        folded = b"".join(self._pieces)
        try:
            layers = content_codings(self._encoding)
            if not layers:
                return folded
            unfolding = DecompressionPipeline(layers, what="An answer", max_bytes=MAX_HEARD_BYTES)
            plain = b"".join(unfolding.feed(folded))
            unfolding.close()
        except BridgeError:
            return None
        return plain


class Overheard:
    """Listens to answers that pass by, and writes down what they tell."""

    def __init__(self, database: Database, *, subjects: Collection[str]) -> None:
        """Listen for what any build may be asked of, and for the reports of Check that `subjects` name."""
        self._database = database
        self._subjects = subjects
        self._notes: Mapping[Kind, Callable[[Subject, HttpResponse], Awaitable[None]]] = {
            Kind.BUILD_INFO: self._note_build_info,
            Kind.RECORD_INFO: self._note_record_info,
        }

    def listen(self, method: str, target: RequestTarget, incoming: ProxyResponse) -> Heard:
        """Return what is to be fed with the body of this answer."""
        subject = self._subject_of(method, target) if incoming.status == 200 else None
        if subject is None:
            return Heard()
        encoding = first(incoming.headers, b"content-encoding")
        return Heard(subject, encoding.decode("ascii", "replace") if encoding else None)

    def _subject_of(self, method: str, target: RequestTarget) -> Subject | CheckSubject | None:
        if method == "GET":
            return subject_of(target)
        name = check_subject_of(target) if method == "PUT" else None
        return CheckSubject(name=name, heard_at=self._database.now()) if name in self._subjects and name else None

    async def note(self, heard: Heard) -> None:
        """Write down what a whole answer told; whoever got it is not made to care whether that worked."""
        body = heard.body() if heard.subject else None
        if heard.subject is None or body is None:
            return
        try:
            answer = HttpResponse(status=200, headers={}, body=body, received_at=self._database.now())
            if isinstance(heard.subject, CheckSubject):
                await self._note_check(heard.subject, answer)
            else:
                await self._notes[heard.subject.kind](heard.subject, answer)
        except Unavailable as error:
            _log.info("overheard_in_vain", reason=str(error))

    async def _note_check(self, subject: CheckSubject, answer: HttpResponse) -> None:
        outcome = read_refresh(answer, in_background=False)
        if isinstance(outcome, CheckReportFetched):
            heard = HeardCheck(subject=subject.name, heard_at=subject.heard_at, report=outcome.report)
            await self._database.write(note_check, heard)

    async def _note_build_info(self, subject: Subject, answer: HttpResponse) -> None:
        outcome = read_build_info(answer)
        if isinstance(outcome, BuildInfo) and not outcome.building:
            await self._database.write(request_poll, PollRequest(job_id=subject.job_id, build_no=subject.build_no))

    async def _note_record_info(self, subject: Subject, answer: HttpResponse) -> None:
        outcome = read_record_info(answer)
        if isinstance(outcome, RecordFetched):
            passing = SeenRecord(job_id=subject.job_id, build_no=subject.build_no, record=outcome.record)
            await self._database.write(fill_record, passing)


def subject_of(target: RequestTarget) -> Subject | None:
    """Return the build whose state or record is asked for, None for every other call."""
    if target.upstream is not Upstream.BUILD:
        return None
    for kind, path in _PATHS:
        found = path.fullmatch(target.path)
        if found and 1 <= int(found[2]) <= MAX_BUILD_NO:
            return Subject(kind=kind, job_id=found[1], build_no=int(found[2]))
    return None


def check_subject_of(target: RequestTarget) -> str | None:
    """Return whose report of CodeArts Check is asked for, None for every other call."""
    found = _CHECK_REFRESH.fullmatch(target.path) if target.upstream is Upstream.CHECK else None
    return subject_of_refresh(found[1], target.query) if found else None
