"""Messages between the gateway and a validation process: requests are lines and bytes, responses are lines of JSON.

JSON, because a process that reads hostile files must not be able to send anything that the gateway would execute. The
gateway imports this and not what the process runs, which takes 30 ms and 4 MB.
"""

import dataclasses
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bridge.domain.junit.encoding import is_utf_8
from bridge.domain.junit.result import (
    Invalid,
    TestCounts,
    Valid,
    ValidationResult,
    highlights_from_json,
    highlights_to_json,
)
from bridge.domain.junit.rewrite_rules import RewriteRule
from bridge.domain.junit.xml_errors import JOIN_HALVES, REPAIRABLE_CODES
from bridge.values import dataclass

CPU_SECONDS: Final = 20  # for one file: a hundred times what 20 MB of ordinary cases take

TOO_LARGE: Final = "too_large"
"""Reason of a rejected file that exceeds the size limit after the transformation."""


class FileDigest(NamedTuple):
    """Identifies the bytes of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformOptions:
    """The transformations that a route asks for, beside those that every report gets (`prepare`)."""

    max_size: int  # bytes of the result: another encoding may make a report three times as large
    repair: bool = False
    strip: tuple[str, ...] = ()  # names of elements
    rewrite: tuple[RewriteRule, ...] = ()  # of names of cases

    def apply_to(self, result: ValidationResult) -> bool:
        """Return whether a file with this result may be changed."""
        if isinstance(result, Invalid):
            return result.remedy == JOIN_HALVES or (self.repair and result.reason in REPAIRABLE_CODES)
        return bool(self.strip or self.rewrite or result.codec) or (self.repair and not is_utf_8(result.encoding))


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformResult:
    """A valid report, and what was changed."""

    accepted: Valid  # for the bytes to send
    changes: tuple[str, ...] = ()  # sentences for people
    written: FileDigest | None = None  # of the bytes to send; None: send the original


class FileRequest(NamedTuple):
    """A file to validate. With options, the bytes to send in its place are written into the existing file `out`."""

    path: Path
    options: TransformOptions = TransformOptions(max_size=0)
    out: Path | None = None

    @property
    def files(self) -> int:
        return 1

    def to_bytes(self) -> bytes:
        """Return the message for `read_request`."""
        options = dataclasses.asdict(self.options)
        return _line({"path": str(self.path), "options": options, "out": self.out and str(self.out)})


class BatchRequest(NamedTuple):
    """Small files to validate, sent through the pipe."""

    bodies: Sequence[bytes]

    @property
    def files(self) -> int:
        return len(self.bodies)

    def to_bytes(self) -> bytes:
        """Return the message for `read_request`: a line of sizes, then the files."""
        return b"".join((_line({"sizes": [len(body) for body in self.bodies]}), *self.bodies))


ValidationRequest = FileRequest | BatchRequest


def read_request(line: bytes, read: Callable[[int], bytes]) -> ValidationRequest:
    """Parse a request; `read(n)` returns the next n bytes after the line."""
    message = json.loads(line)
    if "sizes" in message:
        return BatchRequest([read(size) for size in message["sizes"]])
    options = message["options"]
    rules = tuple(RewriteRule(**rule) for rule in options["rewrite"])
    options = TransformOptions(**options | {"strip": tuple(options["strip"]), "rewrite": rules})
    return FileRequest(Path(message["path"]), options, message["out"] and Path(message["out"]))


class ValidationResponse(NamedTuple):
    """A result and the CPU time for each file, or why there is none; `worn` if the process should be replaced."""

    results: tuple[TransformResult | Invalid, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    failed: str = ""
    worn: bool = False

    def to_bytes(self) -> bytes:
        """Return the line for `read_response`."""
        results = [_result_to_json(result) for result in self.results]
        return _line({"results": results, "cpu_seconds": self.cpu_seconds, "failed": self.failed, "worn": self.worn})


def read_response(line: bytes) -> ValidationResponse:
    """Parse a response."""
    message = json.loads(line)
    return ValidationResponse(
        results=tuple(map(_result_from_json, message["results"])),
        cpu_seconds=tuple(message["cpu_seconds"]),
        failed=message["failed"],
        worn=message["worn"],
    )


def _result_to_json(result: TransformResult | Invalid) -> dict[str, Any]:
    if isinstance(result, Invalid):
        return {"invalid": dataclasses.asdict(result)}
    accepted = result.accepted
    return {
        "counts": vars(accepted.counts),
        "encoding": accepted.encoding,
        "notes": accepted.notes,
        "codec": accepted.codec,
        "highlights": highlights_to_json(accepted.highlights),
        "case_digest": b64encode(accepted.case_digest).decode(),
        "changes": result.changes,
        "written": result.written,
    }


def _result_from_json(message: dict[str, Any]) -> TransformResult | Invalid:
    if invalid := message.get("invalid"):
        return Invalid(**invalid)
    return TransformResult(
        accepted=Valid(
            counts=TestCounts(**message["counts"]),
            encoding=message["encoding"],
            notes=tuple(message["notes"]),
            codec=message["codec"],
            highlights=highlights_from_json(message["highlights"]),
            case_digest=b64decode(message["case_digest"]),
        ),
        changes=tuple(message["changes"]),
        written=FileDigest(*message["written"]) if message["written"] else None,
    )


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
