"""Every exception the bridge raises on purpose, and what each tells the person who meets it.

It knows no other module. Each error carries a stable code, the HTTP status that a caller gets, and whether
asking again can help. The message is two sentences: what happened to what, and what to do next.

    BridgeError
    ├── CallerError                what the caller sent cannot be taken as it is
    │   ├── BadParameter           400 CB.00060200   a query parameter, or the form as a whole
    │   ├── BadReport              400 BRIDGE.REPORT one or more files are not JUnit reports
    │   ├── TooLarge               413 BRIDGE.TOO_LARGE
    │   ├── UnknownEncoding        415 BRIDGE.ENCODING
    │   ├── NoRoute                404 BRIDGE.NO_ROUTE
    │   ├── NotFound               404 BRIDGE.NOT_FOUND
    │   ├── WrongMethod            405 BRIDGE.METHOD
    │   ├── Unauthenticated        401 APIGW.0301
    │   └── Forbidden              403 APIGW.0302
    ├── Unavailable                503 BRIDGE.UNAVAILABLE, with Retry-After
    │   ├── OddAnswer              the same, but S3 answered a read, with something else than the object
    │   ├── CommitUncertain              likewise, but a commit's answer was lost: it may have been kept
    │   └── Unwritable             likewise, but the ledger refuses what it holds, and would again
    ├── BadGateway                 502 APIGW.0202   CodeArts gave no answer to a proxied call
    ├── GatewayTimeout             504 APIGW.0203   likewise, in time
    ├── SettingsError              the settings file: all complaints at once
    ├── LedgerError
    │   ├── LeaseLost              somebody else owns the build now: stop, write nothing
    │   ├── LedgerInUse            another gateway has this SQLite ledger open
    │   └── SchemaMismatch         the ledger is older or newer than this code
    ├── BackupFailed               a copy of the ledger could not be made; nothing of it is left
    ├── Held                       409 BRIDGE.HELD   a restored ledger cannot be resumed as was asked
    └── DamagedBlob                bytes in the spool are not what the ledger says
"""

from typing import ClassVar


class BridgeError(Exception):
    """Root of everything raised on purpose; `str(error)` is fit to be shown to a person."""

    code: ClassVar[str] = "BRIDGE.ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class CallerError(BridgeError):
    """What the caller sent cannot be taken; the same again will get the same answer."""

    code = "BRIDGE.CALLER"
    status = 400


class BadParameter(CallerError):
    """A query parameter or the form is missing or malformed."""

    code = "CB.00060200"


class BadReport(CallerError):
    """One or more uploaded files are not JUnit reports."""

    code = "BRIDGE.REPORT"


class TooLarge(CallerError):
    """A file or the whole request is over the limit."""

    code = "BRIDGE.TOO_LARGE"
    status = 413


class UnknownEncoding(CallerError):
    """The Content-Encoding is none that the bridge can unfold."""

    code = "BRIDGE.ENCODING"
    status = 415


class NoRoute(CallerError):
    """No `[[routes]]` table takes this job."""

    code = "BRIDGE.NO_ROUTE"
    status = 404


class NotFound(CallerError):
    """Nothing here has this name."""

    code = "BRIDGE.NOT_FOUND"
    status = 404


class MethodNotAllowed(CallerError):
    """What stands at this path is not asked with this method."""

    code = "BRIDGE.METHOD"
    status = 405


class Unauthenticated(CallerError):
    """Nobody knows the caller: the token or the signature is missing, wrong, or no longer good."""

    code = "APIGW.0301"
    status = 401


class Forbidden(CallerError):
    """The caller is known but may not do this."""

    code = "APIGW.0302"
    status = 403


class Unavailable(BridgeError):
    """The bridge cannot keep a report right now; nothing of the request was accepted."""

    code = "BRIDGE.UNAVAILABLE"
    status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class UnexpectedResponse(Unavailable):
    """S3 answered a read of an object with something else: `saw` is what, `remedy` is what a person can check."""

    def __init__(self, saw: str, remedy: str) -> None:
        super().__init__(f"S3 did not return an object: {saw}. {remedy}")
        self.saw = saw
        self.remedy = remedy


class CommitUncertain(Unavailable):
    """The ledger was lost in the middle of a commit: nobody knows whether it was made, so nothing may be undone."""


class LedgerRejectedWrite(Unavailable):
    """The ledger is there and refuses what is to be written or read: a fault of the bridge's own, which will last."""


class BadGateway(BridgeError):
    """An upstream could not be reached for a proxied call, or its answer was cut or is no HTTP."""

    code = "APIGW.0202"
    status = 502
    retryable = True


class GatewayTimeout(BridgeError):
    """An upstream took a proxied call and did not answer in time."""

    code = "APIGW.0203"
    status = 504
    retryable = True


class SettingsError(BridgeError):
    """The settings cannot be used: one complaint a line, each with its key and the remedy."""

    code = "BRIDGE.SETTINGS"

    def __init__(self, complaints: list[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = complaints


class LedgerError(BridgeError):
    """The ledger cannot be used as asked."""

    code = "BRIDGE.LEDGER"


class LeaseLost(LedgerError):
    """The build has a newer owner: the visit stops and writes nothing more under its fence."""


class LedgerInUse(LedgerError):
    """Another gateway holds this SQLite ledger."""


class SchemaMismatch(LedgerError):
    """The ledger's schema is not the one this code was written for."""


class BackupFailed(BridgeError):
    """The ledger could not be copied; what was begun of the copy is gone."""

    code = "BRIDGE.BACKUP"


class LedgerHeld(BridgeError):
    """The ledger cannot be resumed as was asked: a person has to say more, or it is not held."""

    code = "BRIDGE.HELD"
    status = 409


class CorruptBlob(BridgeError):
    """Bytes read from the spool differ in size or digest from what the ledger says."""

    code = "BRIDGE.DAMAGED_BLOB"
