"""What a call to TestNod, its storage or CodeArts came to, as the core sees it.

The protocols translate HTTP answers into these values, plan.py translates these into what changes;
it knows neither HTTP nor the ledger. Messages are the upstream's own words, cut and free of secrets.
"""

from dataclasses import dataclass, field

from bridge.domain.build import BuildRecord
from bridge.domain.code_check.models import CheckReport
from bridge.errors import BridgeError, CorruptBlob

SHOWN_DIGITS = 12
"""Of a digest in a message: enough to tell two apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """Register answered 2xx with the ids of an upload.

    `presigned_url` is empty if the answer was not 201 or named no URL that can be used: nothing can be PUT then, and
    the upload is reported failed.
    """

    test_run_id: str
    upload_id: str
    test_run_url: str
    presigned_url: str
    expires_at: int | None  # microseconds UTC on our clock; None where the URL does not say
    project_id: str = ""  # empty if the answer named none


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """Finalize answered 200: the run's state after the call: pending, processing, processed or failed."""

    status: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunMissing:
    """Finalize answered 404 `Test run not found`: no run has this build_id, so the project itself is there."""

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

    etag: str = field(default="", compare=False)  # what a multipart upload names its parts by


@dataclass(frozen=True, kw_only=True, slots=True)
class PutRejected:
    """S3 answered the PUT with another status that says something: `code` is S3's own (`AccessDenied`, …) or empty."""

    status: int
    code: str
    message: str
    retry_after_seconds: float | None = None

    @property
    def is_too_large(self) -> bool:
        """Whether storage can never take this report."""
        return self.status == 413 or self.code == "EntityTooLarge"

    @property
    def said(self) -> str:
        """What people are shown."""
        return " ".join(f"storage answered {self.status} {self.code} {self.message}".split())


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectMissing:
    """Any TestNod call answered 404 `Project not found.`: the route's token is wrong, the report is fine."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """Register answered 409: two registers of one build_id raced."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """Any other 4xx in the upstream's own words: the call was understood and refused; nothing was recorded."""

    status: int
    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UnrecognizedResponse:
    """A redirect or 4xx that is not in TestNod's words, but of a proxy, a login page or a wrong address.

    Nothing was recorded.
    """

    status: int
    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UrlRejected:
    """The presigned URL leads to where the bridge may not send reports; nothing was sent."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NotSent:
    """Nothing of the request left this machine (no address, connection refused, TLS): it cannot have had an effect."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeUnknown:
    """5xx, cut, garbled, timed out or not understood: it may or may not have had an effect."""

    message: str
    status: int | None = None
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptBody:
    """The spool has no bytes of the report, or other bytes than were accepted."""

    message: str
    gone: bool = False  # no row refers to bytes any more: nothing can bring them back


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolUnreadable:
    """The bridge's own spool did not return the report's bytes now: the target is not at fault, and got no report."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildInfo:
    """build-info answered: `result` means something only when `building` is false."""

    building: bool
    result: str | None
    region: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordFetched:
    """record-info answered."""

    record: BuildRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class NoSuchBuild:
    """CodeArts says definitely that it knows no such build (422 …00031006, 404 with a CodeArts code)."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialsRejected:
    """CodeArts refused our credentials (401, APIGW.0301, APIGW.0307, CC.00000003), also after renewing them once."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Throttled:
    """CodeArts is throttling (429, or 500 CB.00060211): slow down for all builds."""

    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReportFetched:
    """CodeArts Check answered with its report."""

    report: CheckReport


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReportPending:
    """CodeArts Check makes its report anew in the background: it is to be asked for later."""


RegisterOutcome = Registered | ProjectMissing | Conflict | Rejected | UnrecognizedResponse | NotSent | OutcomeUnknown
PutOutcome = Stored | PutRejected | UrlRejected | NotSent | OutcomeUnknown | CorruptBody | SpoolUnreadable
FinalizeOutcome = (
    RunStatus | RunMissing | RunEmpty | ProjectMissing | Rejected | UnrecognizedResponse | NotSent | OutcomeUnknown
)
UploadFailedOutcome = FailureRecorded | ProjectMissing | Rejected | UnrecognizedResponse | NotSent | OutcomeUnknown
PollOutcome = BuildInfo | NoSuchBuild | CredentialsRejected | Throttled | Rejected | NotSent | OutcomeUnknown
RecordOutcome = RecordFetched | NoSuchBuild | CredentialsRejected | Throttled | Rejected | NotSent | OutcomeUnknown
CheckOutcome = (
    CheckReportFetched | CheckReportPending | CredentialsRejected | Throttled | Rejected | NotSent | OutcomeUnknown
)


def put_message(outcome: PutOutcome) -> str:
    """Return what people are shown of a PUT that was not stored."""
    match outcome:
        case Stored():
            return ""
        case PutRejected():
            return outcome.said
    return outcome.message


def unreadable(error: BridgeError | OSError) -> CorruptBody | SpoolUnreadable:
    """Return what it means that a report's bytes could not be read from where they are kept."""
    match error:
        case CorruptBlob():
            return CorruptBody(message=str(error))
        case FileNotFoundError():
            return CorruptBody(message="The report's bytes are not where they were kept. Check the spool.")
        case OSError():
            reason = error.strerror or type(error).__name__
            return SpoolUnreadable(message=f"The report's bytes cannot be read: {reason}. Check the spool.")
    return SpoolUnreadable(message=str(error))


def different(size: int, sha256: str, *, accepted_size: int, accepted_sha256: str) -> CorruptBody:
    """Return what it means that other bytes were read than were accepted; digests are hex."""
    return CorruptBody(
        message=f"The spool returned {size} bytes (SHA-256 {sha256[:SHOWN_DIGITS]}), not the {accepted_size} bytes "
        f"({accepted_sha256[:SHOWN_DIGITS]}) that were accepted. Check its disk or bucket."
    )


def too_many(accepted_size: int) -> CorruptBody:
    """Return what it means that more bytes were read than were accepted."""
    return CorruptBody(
        message=f"The spool returned more than the {accepted_size} bytes that were accepted. Check its disk or bucket."
    )
