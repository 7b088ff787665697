"""The program of one checking process: reads paths, line by line, and answers each with a verdict.

It runs hostile files alone, under limits of its own, and knows neither asyncio nor the gateway around it.
"""

import dataclasses
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge.domain.junit import Accepted, Counts, Gate, Refused, Verdict
from bridge.domain.junit_faults import TOO_MUCH_MEMORY

READY: Final = b"ready\n"  # said once, when the imports are done
READ_SIZE: Final = 64 << 10  # bytes a read: what the gate hands to lxml at once
MEMORY_SIZE: Final = 512 << 20  # bytes of address space: eight times the largest single token of a 50 MiB report
CPU_SECONDS: Final = 20  # for one file: a hundred times what 20 MB of honest cases take


def main() -> None:
    """Answer every line of standard input until it ends, which it does when the gateway is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_SIZE, MEMORY_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = sys.stdout.buffer
    out.write(READY)
    out.flush()
    for line in sys.stdin.buffer:
        limit_cpu_time()
        out.write(answer(Path(json.loads(line))))
        out.flush()


def limit_cpu_time() -> None:
    """Let the next file have its seconds of CPU; the kernel ends the process that takes more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent_seconds = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent_seconds + CPU_SECONDS, hard))


def answer(path: Path) -> bytes:
    """Check one file and give the verdict as a line of JSON, or `{"failed": …}` where the file cannot be read."""
    try:
        return encode(check_file(path))
    except OSError as error:
        return json.dumps({"failed": error.strerror or type(error).__name__}).encode() + b"\n"


def check_file(path: Path) -> Verdict:
    """Judge the file at `path`, reading no further than its first fault."""
    gate = Gate()
    try:
        for chunk in _chunks(path):
            gate.feed(chunk)
            if gate.refused is not None:
                break
        return gate.close()
    except MemoryError:
        return TOO_MUCH_MEMORY


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(READ_SIZE):
            yield chunk


def encode(verdict: Verdict) -> bytes:
    """Write a verdict as one line; `decode` reads it."""
    kind = "accepted" if isinstance(verdict, Accepted) else "refused"
    return json.dumps({kind: dataclasses.asdict(verdict)}).encode() + b"\n"


def decode(line: bytes) -> Verdict:
    """Read a verdict back; raises OSError with the reason where the file could not be read."""
    said = json.loads(line)
    if "failed" in said:
        raise OSError(said["failed"])
    if "refused" in said:
        return Refused(**said["refused"])
    accepted = said["accepted"]
    return Accepted(counts=Counts(**accepted["counts"]), encoding=accepted["encoding"], notes=tuple(accepted["notes"]))


if __name__ == "__main__":
    main()
