"""The program of one checking process: reads questions, one after the other, and answers each with verdicts.

It runs hostile files alone, under limits of its own, and knows neither asyncio nor the gateway around it.
"""

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge.domain.junit.validator import Invalid, Valid, ValidationResult, validate_bytes, validate_source
from bridge.domain.junit.xml_errors import TOO_MUCH_MEMORY
from bridge.server.validation.messages import (
    BatchRequest,
    FileRequest,
    ValidationRequest,
    ValidationResponse,
    read_request,
)
from bridge.server.validation.transform import TransformResult, transform

READY: Final = b"ready\n"  # said once, when the imports are done
READ_SIZE: Final = 64 << 10  # bytes a read: what the gate hands to lxml at once
MEMORY_SIZE: Final = 512 << 20  # bytes of address space: eight times the largest single token of a 50 MiB report
WORN_SIZE: Final = 48 << 20  # bytes still resident between files, thrice the idle ones: libxml2 forgets no name
WORN_FILES: Final = 500  # files read from the disk: what is kept of each is little, but kept
CPU_SECONDS: Final = 20  # for one file: a hundred times what 20 MB of honest cases take


def main() -> None:
    """Answer every line of standard input until it ends, which it does when the gateway is gone."""
    try:
        _answer_all()
    except BrokenPipeError:  # killed before it heard the answer: nobody is left to be told, and Python would try again
        os._exit(1)


def _answer_all() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_SIZE, MEMORY_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = sys.stdout.buffer
    out.write(READY)
    out.flush()
    pipe, files = sys.stdin.buffer, 0
    for line in pipe:
        limit_cpu_time()
        question = read_request(line, pipe.read)
        files += isinstance(question, FileRequest)
        told = answer(question)
        worn = files >= WORN_FILES or resident_size() > WORN_SIZE
        out.write(told._replace(worn=worn).written())
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


def answer(question: ValidationRequest) -> ValidationResponse:
    """Check what is asked."""
    try:
        if isinstance(question, BatchRequest):
            return ValidationResponse(tuple(map(_judged, question.bodies)))
        return ValidationResponse((_treated(question),))
    except OSError as error:
        return ValidationResponse(failed=error.strerror or type(error).__name__)


def _judged(body: bytes) -> TransformResult | Invalid:
    try:
        verdict = validate_bytes(body)
    except MemoryError:
        return TOO_MUCH_MEMORY
    return TransformResult(accepted=verdict) if isinstance(verdict, Valid) else verdict


def _treated(question: FileRequest) -> TransformResult | Invalid:
    try:
        verdict = check_file(question.path)
        if question.out is None:
            return TransformResult(accepted=verdict) if isinstance(verdict, Valid) else verdict
        # Not created here: whoever asked may have given up, and removed it, while this process still lives.
        with question.out.open("r+b") as out:
            return transform(verdict, question.treatment, lambda: _chunks(question.path), out)
    except MemoryError:
        return TOO_MUCH_MEMORY


def check_file(path: Path) -> ValidationResult:
    """Judge the file at `path`, reading no further than its first fault."""
    return validate_source(lambda: _chunks(path))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(READ_SIZE):
            yield chunk


if __name__ == "__main__":
    main()
