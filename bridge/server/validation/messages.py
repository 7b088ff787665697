"""What the gateway and its checking processes tell each other: questions as lines and bytes, verdicts as lines.

It knows neither processes nor pipes. The answers are JSON: whoever reads a hostile file is not trusted with more.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge.domain.junit.result import Invalid, TestCounts, Valid
from bridge.server.validation.transform import RewrittenFile, TransformOptions, TransformResult


class FileRequest(NamedTuple):
    """A file to check; with a treatment, what is to be sent in its place goes into the file `out`, which is there."""

    path: Path
    treatment: TransformOptions = TransformOptions(max_size=0)
    out: Path | None = None

    @property
    def files(self) -> int:
        return 1

    def written(self) -> bytes:
        """Return what `read_question` reads."""
        treatment = dataclasses.asdict(self.treatment)
        return _line({"path": str(self.path), "treatment": treatment, "out": self.out and str(self.out)})


class BatchRequest(NamedTuple):
    """Small files to check, whole, in the pipe itself."""

    bodies: Sequence[bytes]

    @property
    def files(self) -> int:
        return len(self.bodies)

    def written(self) -> bytes:
        """Return what `read_question` reads: a line of sizes, then the files."""
        return b"".join((_line({"sizes": [len(body) for body in self.bodies]}), *self.bodies))


ValidationRequest = FileRequest | BatchRequest


def read_request(line: bytes, read: Callable[[int], bytes]) -> ValidationRequest:
    """Read what the gateway asks; `read` gives so many bytes of what follows the line."""
    said = json.loads(line)
    if "sizes" in said:
        return BatchRequest([read(size) for size in said["sizes"]])
    treatment = TransformOptions(**said["treatment"] | {"strip": tuple(said["treatment"]["strip"])})
    return FileRequest(Path(said["path"]), treatment, said["out"] and Path(said["out"]))


class ValidationResponse(NamedTuple):
    """A verdict for each file, or the reason why there is none; and whether the process has served its time."""

    verdicts: tuple[TransformResult | Invalid, ...] = ()
    failed: str = ""
    worn: bool = False

    def written(self) -> bytes:
        """Return the line that `read_answer` reads."""
        verdicts = [_said(verdict) for verdict in self.verdicts]
        return _line({"verdicts": verdicts, "failed": self.failed, "worn": self.worn})


def read_response(line: bytes) -> ValidationResponse:
    """Read what an inspector wrote."""
    said = json.loads(line)
    return ValidationResponse(tuple(map(_read_verdict, said["verdicts"])), said["failed"], said["worn"])


def _said(verdict: TransformResult | Invalid) -> dict[str, Any]:
    if isinstance(verdict, Invalid):
        return {"refused": dataclasses.asdict(verdict)}
    accepted = verdict.accepted
    return {
        "counts": [getattr(accepted.counts, name) for name in TestCounts.__slots__],
        "encoding": accepted.encoding,
        "notes": accepted.notes,
        "changes": verdict.changes,
        "written": verdict.written,
    }


def _read_verdict(said: dict[str, Any]) -> TransformResult | Invalid:
    if refused := said.get("refused"):
        return Invalid(**refused)
    counts = TestCounts(**dict(zip(TestCounts.__slots__, said["counts"], strict=True)))
    return TransformResult(
        accepted=Valid(counts=counts, encoding=said["encoding"], notes=tuple(said["notes"])),
        changes=tuple(said["changes"]),
        written=RewrittenFile(*said["written"]) if said["written"] else None,
    )


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode() + b"\n"
