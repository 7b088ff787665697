"""All exceptions that the bridge raises on purpose: code, HTTP status, and whether a retry can help.

A message is two sentences: what happened to what, and what to do. The first line of a docstring states when the error
is raised; docs/codes.md is rendered from it (`make docs`).

    BridgeError
    ├── CallerError                the request cannot be accepted as it is
    │   ├── BadParameter           400 CB.00060200
    │   ├── BadReport              400 BRIDGE.REPORT
    │   ├── Unauthenticated        401 APIGW.0301
    │   ├── Forbidden              403 APIGW.0302
    │   ├── NoRoute                404 BRIDGE.NO_ROUTE
    │   ├── WrongPath              404 BRIDGE.PATH
    │   ├── NotFound               404 BRIDGE.NOT_FOUND
    │   ├── MethodNotAllowed       405 BRIDGE.METHOD
    │   ├── TooLarge               413 BRIDGE.TOO_LARGE
    │   └── UnknownEncoding        415 BRIDGE.ENCODING
    ├── Unavailable                503 BRIDGE.UNAVAILABLE, with Retry-After
    │   ├── UnexpectedResponse     S3 answered a read with something else than the object
    │   ├── CommitUncertain        the answer to a commit was lost
    │   └── LedgerRejectedWrite    the ledger is available and rejects the statement
    ├── BadGateway                 502 APIGW.0202
    ├── GatewayTimeout             504 APIGW.0203
    ├── SettingsError              lists all problems of the settings
    ├── LedgerError
    │   ├── LeaseLost
    │   ├── LedgerInUse
    │   └── SchemaMismatch
    ├── BackupFailed
    ├── ResumeRejected             409 BRIDGE.RESUME
    └── CorruptBlob
"""

from typing import ClassVar


class BridgeError(Exception):
    """Base of all errors that are raised on purpose; `str(error)` may be shown to people.

    `reason` is a short class for programs, such as `too_large`; an instance may narrow that of its class.
    """

    code: ClassVar[str] = "BRIDGE.ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    reason: str = "failed"

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or type(self).reason


class CallerError(BridgeError):
    """The request cannot be accepted. The same request will be rejected again."""

    code = "BRIDGE.CALLER"
    status = 400
    reason = "rejected"


class BadParameter(CallerError):
    """A query parameter or the form is missing or malformed."""

    code = "CB.00060200"
    reason = "parameter"


class BadReport(CallerError):
    """One or more uploaded files are not JUnit reports."""

    code = "BRIDGE.REPORT"
    reason = "invalid_report"


class Unauthenticated(CallerError):
    """The token or the signature is missing, wrong, or expired."""

    code = "APIGW.0301"
    status = 401
    reason = "unauthenticated"


class Forbidden(CallerError):
    """The caller is authenticated but lacks the right to do this."""

    code = "APIGW.0302"
    status = 403
    reason = "forbidden"


class NoRoute(CallerError):
    """No `[[routes]]` table matches this job."""

    code = "BRIDGE.NO_ROUTE"
    status = 404
    reason = "no_route"


class WrongPath(CallerError):
    """The path is not the upload path but resembles it. Nothing was stored or forwarded."""

    code = "BRIDGE.PATH"
    status = 404
    reason = "wrong_path"


class NotFound(CallerError):
    """Nothing exists under this path or id."""

    code = "BRIDGE.NOT_FOUND"
    status = 404
    reason = "not_found"


class MethodNotAllowed(CallerError):
    """The path exists but does not support the request's method."""

    code = "BRIDGE.METHOD"
    status = 405
    reason = "method"


class TooLarge(CallerError):
    """A file or the whole request exceeds a limit."""

    code = "BRIDGE.TOO_LARGE"
    status = 413
    reason = "too_large"


class UnknownEncoding(CallerError):
    """The Content-Encoding or Content-Transfer-Encoding is not one that the bridge can decode."""

    code = "BRIDGE.ENCODING"
    status = 415
    reason = "content_encoding"


class Unavailable(BridgeError):
    """The bridge cannot store reports at the moment. Nothing of the request was accepted."""

    code = "BRIDGE.UNAVAILABLE"
    status = 503
    retryable = True
    reason = "unavailable"

    def __init__(self, message: str, *, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class UnexpectedResponse(Unavailable):
    """S3 answered a read with something else than the object: `received` describes it, `remedy` names what to check."""

    def __init__(self, received: str, remedy: str) -> None:
        super().__init__(f"S3 did not return an object: {received}. {remedy}")
        self.received = received
        self.remedy = remedy


class CommitUncertain(Unavailable):
    """The connection to the ledger was lost during a commit. It may have succeeded, so nothing may be undone."""


class LedgerRejectedWrite(Unavailable):
    """The ledger is available and rejects a statement. This is a bug of the bridge, so a retry fails as well."""


class BadGateway(BridgeError):
    """An upstream could not be reached for a forwarded call, or its answer was cut off or is not HTTP."""

    code = "APIGW.0202"
    status = 502
    retryable = True
    reason = "bad_gateway"


class GatewayTimeout(BridgeError):
    """An upstream accepted a forwarded call and did not answer in time."""

    code = "APIGW.0203"
    status = 504
    retryable = True
    reason = "timeout"


class SettingsError(BridgeError):
    """The settings are invalid: one problem a line, each with its key and what to do."""

    code = "BRIDGE.SETTINGS"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LedgerError(BridgeError):
    """The ledger cannot be used for this."""

    code = "BRIDGE.LEDGER"


class LeaseLost(LedgerError):
    """Another worker has claimed the build. The reconciler stops and writes nothing more under its fencing token."""


class LedgerInUse(LedgerError):
    """Another process has this SQLite ledger open; `holder` names it, if that is known."""

    def __init__(self, path: object, holder: str = "", *, remedy: str = "") -> None:
        shown = f" ({holder})" if holder else ""
        remedy = remedy or "Stop it first, or give this gateway a separate store.url."
        super().__init__(f"store.url: another gateway{shown} has the ledger {path} open. {remedy}")
        self.holder = holder


class SchemaMismatch(LedgerError):
    """The ledger's schema is older or newer than this program."""


class LedgerMoved(LedgerError):
    """The ledger was moved to another database, or a move from it or to it has not ended."""


class MoveRejected(BridgeError):
    """The ledger cannot be moved, or a move cannot be taken back. Both ledgers are kept."""

    code = "BRIDGE.MOVE"


class BackupFailed(BridgeError):
    """The ledger could not be copied. The incomplete copy was removed."""

    code = "BRIDGE.BACKUP"


class ResumeRejected(BridgeError):
    """The ledger cannot be resumed: it is not paused, or it has uncertain deliveries and no choice was made."""

    code = "BRIDGE.RESUME"
    status = 409


class CorruptBlob(BridgeError):
    """The size or digest of bytes in the spool differs from what the ledger has."""

    code = "BRIDGE.DAMAGED_BLOB"


def reason_of(code: str, error: type[BridgeError] = BridgeError) -> str:
    """Return the short class of an error code; empty if no error has the code."""
    if error.code == code:
        return error.reason
    return next((found for kind in error.__subclasses__() if (found := reason_of(code, kind))), "")
