"""What the gateway and its checking processes tell each other: questions as lines and bytes, verdicts as lines.

It knows neither processes nor pipes. The answers are JSON: whoever reads a hostile file is not trusted with more.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge.domain.junit.verdict import Accepted, Counts, Refused
from bridge.server.checking.treatment import Treated, Treatment, Written


class FileQuestion(NamedTuple):
    """A file to check; with a treatment, what is to be sent in its place goes into the file `out`, which is there."""

    path: Path
    treatment: Treatment = Treatment(max_size=0)
    out: Path | None = None

    @property
    def files(self) -> int:
        return 1

    def written(self) -> bytes:
        """Return what `read_question` reads."""
        treatment = dataclasses.asdict(self.treatment)
        return _line({"path": str(self.path), "treatment": treatment, "out": self.out and str(self.out)})


class BodiesQuestion(NamedTuple):
    """Small files to check, whole, in the pipe itself."""

    bodies: Sequence[bytes]

    @property
    def files(self) -> int:
        return len(self.bodies)

    def written(self) -> bytes:
        """Return what `read_question` reads: a line of sizes, then the files."""
        return b"".join((_line({"sizes": [len(body) for body in self.bodies]}), *self.bodies))


Question = FileQuestion | BodiesQuestion


def read_question(line: bytes, read: Callable[[int], bytes]) -> Question:
    """Read what the gateway asks; `read` gives so many bytes of what follows the line."""
    said = json.loads(line)
    if "sizes" in said:
        return BodiesQuestion([read(size) for size in said["sizes"]])
    treatment = Treatment(**said["treatment"] | {"strip": tuple(said["treatment"]["strip"])})
    return FileQuestion(Path(said["path"]), treatment, said["out"] and Path(said["out"]))


class Answer(NamedTuple):
    """A verdict for each file, or the reason why there is none; and whether the process has served its time."""

    verdicts: tuple[Treated | Refused, ...] = ()
    failed: str = ""
    worn: bool = False

    def written(self) -> bytes:
        """Return the line that `read_answer` reads."""
        verdicts = [_said(verdict) for verdict in self.verdicts]
        return _line({"verdicts": verdicts, "failed": self.failed, "worn": self.worn})


def read_answer(line: bytes) -> Answer:
    """Read what an inspector wrote."""
    said = json.loads(line)
    return Answer(tuple(map(_read_verdict, said["verdicts"])), said["failed"], said["worn"])


def _said(verdict: Treated | Refused) -> dict[str, Any]:
    if isinstance(verdict, Refused):
        return {"refused": dataclasses.asdict(verdict)}
    accepted = verdict.accepted
    return {
        "counts": [getattr(accepted.counts, name) for name in Counts.__slots__],
        "encoding": accepted.encoding,
        "notes": accepted.notes,
        "changes": verdict.changes,
        "written": verdict.written,
    }


def _read_verdict(said: dict[str, Any]) -> Treated | Refused:
    if refused := said.get("refused"):
        return Refused(**refused)
    counts = Counts(**dict(zip(Counts.__slots__, said["counts"], strict=True)))
    return Treated(
        accepted=Accepted(counts=counts, encoding=said["encoding"], notes=tuple(said["notes"])),
        changes=tuple(said["changes"]),
        written=Written(*said["written"]) if said["written"] else None,
    )


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode() + b"\n"
