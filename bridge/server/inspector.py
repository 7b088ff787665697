"""The program of one checking process: reads questions, line by line, and answers each with a verdict.

It runs hostile files alone, under limits of its own, and knows neither asyncio nor the gateway around it.
"""

import dataclasses
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from bridge.domain.junit import Accepted, Counts, Gate, Refused, Verdict
from bridge.domain.junit_faults import TOO_MUCH_MEMORY
from bridge.server.treatment import Treated, Treatment, Written, treat

READY: Final = b"ready\n"  # said once, when the imports are done
READ_SIZE: Final = 64 << 10  # bytes a read: what the gate hands to lxml at once
MEMORY_SIZE: Final = 512 << 20  # bytes of address space: eight times the largest single token of a 50 MiB report
WORN_SIZE: Final = 48 << 20  # bytes still resident between files, thrice the idle ones: libxml2 forgets no name
WORN_FILES: Final = 500  # files read: what is kept of each is little, but kept
CPU_SECONDS: Final = 20  # for one file: a hundred times what 20 MB of honest cases take


def main() -> None:
    """Answer every line of standard input until it ends, which it does when the gateway is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_SIZE, MEMORY_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = sys.stdout.buffer
    out.write(READY)
    out.flush()
    for count, line in enumerate(sys.stdin.buffer, start=1):
        limit_cpu_time()
        said = answer(read_question(line))
        worn = count >= WORN_FILES or resident_size() > WORN_SIZE
        out.write(json.dumps(said | {"worn": worn}).encode() + b"\n")
        out.flush()


def limit_cpu_time() -> None:
    """Let the next file have its seconds of CPU; the kernel ends the process that takes more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent_seconds = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent_seconds + CPU_SECONDS, hard))


def resident_size() -> int:
    """Bytes of memory held now; 0 where the system does not say (ru_maxrss would begin at the parent's)."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


class Question(NamedTuple):
    """A file to check; with a treatment, what is to be sent in its place goes into the file `out`, which is there."""

    path: Path
    treatment: Treatment = Treatment(max_size=0)
    out: Path | None = None


def write_question(question: Question) -> bytes:
    """Return the line that `read_question` reads."""
    treatment = dataclasses.asdict(question.treatment)
    said = {"path": str(question.path), "treatment": treatment, "out": question.out and str(question.out)}
    return json.dumps(said).encode() + b"\n"


def read_question(line: bytes) -> Question:
    """Read what the gateway asks."""
    said = json.loads(line)
    treatment = Treatment(**said["treatment"] | {"strip": tuple(said["treatment"]["strip"])})
    return Question(Path(said["path"]), treatment, said["out"] and Path(said["out"]))


def answer(question: Question) -> dict[str, Any]:
    """Check one file; gives what `read_answer` reads."""
    try:
        verdict = _treated(question)
    except OSError as error:
        return {"failed": error.strerror or type(error).__name__}
    except MemoryError:
        verdict = TOO_MUCH_MEMORY
    kind = "treated" if isinstance(verdict, Treated) else "refused"
    return {kind: dataclasses.asdict(verdict)}


def _treated(question: Question) -> Treated | Refused:
    verdict = check_file(question.path)
    if question.out is None:
        return Treated(accepted=verdict) if isinstance(verdict, Accepted) else verdict
    # Not created here: whoever asked may have given up, and removed it, while this process still lives.
    with question.out.open("r+b") as out:
        return treat(verdict, question.treatment, lambda: _chunks(question.path), out)


def check_file(path: Path) -> Verdict:
    """Judge the file at `path`, reading no further than its first fault."""
    gate = Gate()
    for chunk in _chunks(path):
        gate.feed(chunk)
        if gate.refused is not None:
            break
    return gate.close()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(READ_SIZE):
            yield chunk


class Answer(NamedTuple):
    """A verdict, or None and the reason why there is none; and whether the process has served its time."""

    verdict: Treated | Refused | None
    failed: str
    worn: bool


def read_answer(line: bytes) -> Answer:
    """Read the line that an inspector wrote."""
    said = json.loads(line)
    verdict: Treated | Refused | None = None
    if refused := said.get("refused"):
        verdict = Refused(**refused)
    elif treated := said.get("treated"):
        verdict = _read_treated(treated)
    return Answer(verdict, said.get("failed", ""), said["worn"])


def _read_treated(said: dict[str, Any]) -> Treated:
    accepted, written = said["accepted"], said["written"]
    accepted |= {"counts": Counts(**accepted["counts"]), "notes": tuple(accepted["notes"])}
    return Treated(
        accepted=Accepted(**accepted), changes=tuple(said["changes"]), written=Written(*written) if written else None
    )


if __name__ == "__main__":
    main()
