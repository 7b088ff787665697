"""The outcomes of upstream calls: `protocols/` maps responses to them, `lifecycle/` maps them to changes.

`message` is the upstream's own text, cut and free of secrets.
"""

from dataclasses import field

from bridge.domain.build import BuildRecord
from bridge.domain.code_check.models import CheckReport
from bridge.domain.instants import Duration, Instant
from bridge.errors import BridgeError, CorruptBlob
from bridge.values import dataclass

SHOWN_DIGITS = 12
"""Of a digest in a message: enough to distinguish two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """Register answered 2xx with the ids of an upload.

    `presigned_url` is empty if the answer was not 201 or contained no usable URL: nothing can be PUT then, and the
    upload is reported failed.
    """

    test_run_id: str
    upload_id: str
    test_run_url: str
    presigned_url: str
    expires_at: Instant | None  # by the bridge's clock; None if the URL does not contain it
    project_id: str = ""  # empty if the answer contained none


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """Finalize answered 200 with the run's state after the call: pending, processing, processed or failed."""

    status: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunMissing:
    """Finalize answered 404 `Test run not found`: no run has this build_id; the project itself exists."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEmpty:
    """Finalize answered 422 `No uploads received`: a run without uploads."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureRecorded:
    """upload_failed answered 200; `status` is `failed`, or `processed` if the upload had ended so before."""

    status: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """S3 answered the PUT with 200."""

    etag: str = field(default="", compare=False)  # identifies a part of a multipart upload


@dataclass(frozen=True, kw_only=True, slots=True)
class PutRejected:
    """S3 answered the PUT with another status; `code` is S3's own (`AccessDenied`, …) or empty."""

    status: int
    code: str
    message: str
    retry_after_seconds: float | None = None

    @property
    def is_too_large(self) -> bool:
        """Return whether storage can never take this report."""
        return self.status == 413 or self.code == "EntityTooLarge"

    @property
    def text(self) -> str:
        """Return status, code and message for people."""
        return " ".join(f"storage answered {self.status} {self.code} {self.message}".split())


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectMissing:
    """A TestNod call was answered 404 `Project not found.`: the route's token is wrong; the report is not at fault."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """Register answered 409: two registers of one build_id raced."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """Another 4xx in the upstream's own format: it rejected the call and recorded nothing."""

    status: int
    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UnrecognizedResponse:
    """A redirect, or a 4xx of a proxy, a login page or a wrong address: TestNod recorded nothing."""

    status: int
    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UrlRejected:
    """The presigned URL leads to a host that the bridge may not send reports to; nothing was sent."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NotSent:
    """No byte of the request left this machine (no address, connection refused, TLS): it cannot have had an effect."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeUnknown:
    """5xx, cut off, timed out or unreadable: the call may have had an effect."""

    message: str
    status: int | None = None
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptBody:
    """The spool has no bytes of the report, or other bytes than were accepted."""

    message: str
    gone: bool = False  # no row refers to a body any more: nothing can bring the bytes back


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolUnreadable:
    """The bridge's own spool did not return the report's bytes now; the target is not at fault."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildInfo:
    """build-info answered; `result` has a meaning only if `building` is false."""

    building: bool
    result: str | None
    region: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordFetched:
    """record-info answered."""

    record: BuildRecord
    started_at: Instant | None = None  # by CodeArts' clock; None if the record does not contain it


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedBuild:
    """One build in the list of a job's builds. It has ended only if `finished`; `result` means nothing before."""

    build_no: int
    finished: bool
    result: str | None
    branch: str | None
    commit: str | None
    repo_url: str | None
    started_at: Instant | None
    duration: Duration | None  # until now, if it is not finished


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildsListed:
    """A page of the list of a job's builds; `pages` is None if the response does not contain their number."""

    builds: tuple[ListedBuild, ...]
    pages: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedJob:
    """One job of a project. `finished` may concern its latest build only, and is None if it is not known."""

    job_id: str
    job_name: str | None
    finished: bool | None
    last_build_status: str | None
    repo_url: str | None
    last_started_at: Instant | None = None  # of its latest build
    disabled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsListed:
    """A page of the list of a project's jobs; `total` is the number of jobs on all pages, None if it is not known."""

    jobs: tuple[ListedJob, ...]
    total: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordDetails:
    """What the details of a record add to record-info; `repo_url` is the page of the repository."""

    build_no: int
    job_name: str | None
    branch: str | None
    commit: str | None
    repo_url: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DetailsFetched:
    """The details of a record were answered."""

    details: RecordDetails


@dataclass(frozen=True, kw_only=True, slots=True)
class NoSuchBuild:
    """CodeArts answered definitely that there is no such build (422 …00031006, 404 with a CodeArts code)."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialsRejected:
    """CodeArts rejected the credentials (401, APIGW.0301, APIGW.0307, CC.00000003), also after one renewal."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Throttled:
    """CodeArts is throttling (429, or 500 CB.00060211): calls for all builds must slow down."""

    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReportFetched:
    """CodeArts Check answered with its report."""

    report: CheckReport


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReportPending:
    """CodeArts Check makes its report in the background; fetch it later."""


RegisterOutcome = Registered | ProjectMissing | Conflict | Rejected | UnrecognizedResponse | NotSent | OutcomeUnknown
PutOutcome = Stored | PutRejected | UrlRejected | NotSent | OutcomeUnknown | CorruptBody | SpoolUnreadable
FinalizeOutcome = (
    RunStatus | RunMissing | RunEmpty | ProjectMissing | Rejected | UnrecognizedResponse | NotSent | OutcomeUnknown
)
UploadFailedOutcome = FailureRecorded | ProjectMissing | Rejected | UnrecognizedResponse | NotSent | OutcomeUnknown
CodeArtsFailure = NoSuchBuild | CredentialsRejected | Throttled | Rejected | NotSent | OutcomeUnknown
PollOutcome = BuildInfo | CodeArtsFailure
RecordOutcome = RecordFetched | CodeArtsFailure
RecordListOutcome = BuildsListed | CodeArtsFailure
JobListOutcome = JobsListed | CodeArtsFailure
DetailsOutcome = DetailsFetched | CodeArtsFailure
CodeArtsOutcome = BuildInfo | RecordFetched | BuildsListed | JobsListed | DetailsFetched | CodeArtsFailure
CheckOutcome = (
    CheckReportFetched | CheckReportPending | CredentialsRejected | Throttled | Rejected | NotSent | OutcomeUnknown
)


def put_message(outcome: PutOutcome) -> str:
    """Return the message of a PUT that was not stored."""
    match outcome:
        case Stored():
            return ""
        case PutRejected():
            return outcome.text
    return outcome.message


def read_failure(error: BridgeError | OSError) -> CorruptBody | SpoolUnreadable:
    """Return the outcome if the bytes of a report could not be read from the spool."""
    match error:
        case CorruptBlob():
            return CorruptBody(message=str(error))
        case FileNotFoundError():
            return CorruptBody(message="The spool has no bytes of the report. Check the spool.")
        case OSError():
            reason = error.strerror or type(error).__name__
            return SpoolUnreadable(message=f"The report's bytes cannot be read: {reason}. Check the spool.")
    return SpoolUnreadable(message=str(error))


def body_differs(size: int, sha256: str, *, accepted_size: int, accepted_sha256: str) -> CorruptBody:
    """Return the outcome if other bytes were read than were accepted; digests are hex."""
    return CorruptBody(
        message=f"The spool returned {size} bytes (SHA-256 {sha256[:SHOWN_DIGITS]}), not the {accepted_size} bytes "
        f"({accepted_sha256[:SHOWN_DIGITS]}) that were accepted. Check its disk or bucket."
    )


def body_too_long(accepted_size: int) -> CorruptBody:
    """Return the outcome if more bytes were read than were accepted."""
    return CorruptBody(
        message=f"The spool returned more than the {accepted_size} bytes that were accepted. Check its disk or bucket."
    )
