"""Program of a validation process: reads requests from standard input and answers each with the results of its files.

It reads hostile files, so it limits its own memory, CPU time and core dumps, and uses no asyncio.
"""

import fcntl
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from bridge.domain.junit.validator import Invalid, Valid, ValidationResult, validate_bytes, validate_source
from bridge.domain.junit.xml_errors import TOO_MUCH_MEMORY
from bridge.server.validation.messages import (
    CPU_SECONDS,
    BatchRequest,
    FileRequest,
    TransformResult,
    ValidationRequest,
    ValidationResponse,
    read_request,
)
from bridge.server.validation.transform import transform

READY: Final = b"ready\n"  # sent once, after the imports
READ_BYTES: Final = 64 << 10  # per read: what the validator passes to lxml at once
MEMORY_BYTES: Final = 512 << 20  # of address space: eight times the largest single token of a 50 MiB report
PIPE_BYTES: Final = 1 << 20  # of the pipe from the gateway, so that a whole batch is written at once
WORN_BYTES: Final = 48 << 20  # resident between files, three times the idle size: libxml2 keeps every name it has seen
WORN_FILES: Final = 500  # files read from the disk: each leaves a little memory behind

Work = TypeVar("Work")
Result = TypeVar("Result")


def main() -> None:
    """Answer every request until standard input ends, which it does if the gateway ends."""
    try:
        _answer_all()
    except BrokenPipeError:  # the gateway ended; without os._exit, Python would write to the pipe again
        os._exit(1)


def _answer_all() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # not a pipe, or not allowed: a batch arrives in pieces
        fcntl.fcntl(sys.stdin.buffer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    out = sys.stdout.buffer
    out.write(READY)
    out.flush()
    pipe, files = sys.stdin.buffer, 0
    for line in pipe:
        limit_cpu_time()
        request = read_request(line, pipe.read)
        files += isinstance(request, FileRequest)
        response = respond(request)
        worn = files >= WORN_FILES or resident_bytes() > WORN_BYTES
        out.write(response._replace(worn=worn).to_bytes())
        out.flush()


def limit_cpu_time() -> None:
    """Allow CPU_SECONDS more; the kernel ends a process that takes longer."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_seconds = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (used_seconds + CPU_SECONDS, hard))


def resident_bytes() -> int:
    """Return the resident memory, 0 if the system has no /proc (ru_maxrss would include the parent's peak)."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        pages = os.read(descriptor, 100).split()[1]
    finally:
        os.close(descriptor)
    return int(pages) * resource.getpagesize()


def respond(request: ValidationRequest) -> ValidationResponse:
    """Validate the files of a request."""
    try:
        if isinstance(request, BatchRequest):
            results, cpu_seconds = zip(*(_measured(_validate, body) for body in request.bodies), strict=True)
        else:
            results, cpu_seconds = zip(_measured(_validate_file, request), strict=True)
    except OSError as error:
        return ValidationResponse(failed=error.strerror or type(error).__name__)
    return ValidationResponse(results, cpu_seconds)


def _measured(validate: Callable[[Work], Result], work: Work) -> tuple[Result, float]:
    began = time.process_time()
    result = validate(work)
    return result, time.process_time() - began


def _validate(body: bytes) -> TransformResult | Invalid:
    try:
        result = validate_bytes(body)
    except MemoryError:
        return TOO_MUCH_MEMORY
    return TransformResult(accepted=result) if isinstance(result, Valid) else result


def _validate_file(request: FileRequest) -> TransformResult | Invalid:
    try:
        result = validate_file(request.path)
        if request.out is None:
            return TransformResult(accepted=result) if isinstance(result, Valid) else result
        # Not created here: if the upload was canceled, the gateway has removed the file already.
        with request.out.open("r+b") as out:
            return transform(result, request.options, lambda: _chunks(request.path), out)
    except MemoryError:
        return TOO_MUCH_MEMORY


def validate_file(path: Path) -> ValidationResult:
    """Validate the file at `path`, reading no further than its first fault."""
    return validate_source(lambda: _chunks(path))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(READ_BYTES):
            yield chunk


if __name__ == "__main__":
    main()
