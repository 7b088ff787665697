"""Uploads as values: which files go into one request, and the body of that request."""

import gzip
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, Protocol, cast
from urllib.parse import quote

from bridge.values import dataclass

MAX_FILES: Final = 500
MAX_BYTES: Final = 32 << 20
"""Of a request, unless one file alone has more: less than the gateway takes, so that several run side by side."""

MEMORY_BYTES: Final = 8 << 20  # of a compressed body; a larger one is written to disk
READ_BYTES: Final = 1 << 20
COMPRESSION_LEVEL: Final = 3  # reports shrink to a tenth; higher levels take longer than they save on a CI network


class Entry(Protocol):
    """A durable copy of an upload."""

    def settle(self, *, answered: bool) -> None:
        """Note the end of one request with files of the entry, which is removed if all were answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The bytes of one file: all of the file at `path`, or `size` bytes of it from `offset`."""

    name: str
    path: str
    size: int
    offset: int = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes; raise OSError if there are fewer than `size`."""
        with open(self.path, "rb") as file:  # noqa: PTH123 -- one call less for each of thousands of files
            file.seek(self.offset)
            left = self.size
            while left:
                chunk = file.read(min(left, READ_BYTES))
                if not chunk:
                    raise OSError(None, "it became shorter while it was read", self.path)
                left -= len(chunk)
                yield chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The files of one request, and its parameters; without files it only states that a build is complete."""

    parameters: Mapping[str, str]
    parts: Sequence[Part]
    complete: bool = False
    entry: Entry | None = field(default=None, compare=False)
    earlier: bool = False  # of an earlier run
    trace_headers: Mapping[str, str] = field(default_factory=dict)  # of the trace of its build, if that has one

    @property
    def build(self) -> tuple[str, str]:
        """Return job_id and build_no."""
        return self.parameters.get("job_id", ""), self.parameters.get("build_no", "")

    @property
    def query(self) -> dict[str, str]:
        """Return the parameters of the request."""
        complete = {"complete": "true"} if self.complete else {}
        return {**self.parameters, **complete, "detail": "files"}


def batches_of(
    parameters: Mapping[str, str],
    parts: Sequence[Part],
    *,
    complete: bool,
    trace_headers: Mapping[str, str] | None = None,
) -> list[Batch]:
    """Return batches within the limits of a request.

    If a complete build needs several, a last one without files states that it is complete, and goes after the others.
    """
    groups: list[list[Part]] = []
    size = 0
    for part in parts:
        if not groups or len(groups[-1]) >= MAX_FILES or size + part.size > MAX_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.size
    alone = complete and len(groups) == 1
    one = partial(Batch, parameters=parameters, trace_headers=trace_headers or {})
    batches = [one(parts=group, complete=alone) for group in groups]
    if not batches or (complete and not alone):
        batches.append(one(parts=(), complete=complete))
    return batches


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """A multipart form, compressed. `file` can be read again from its start."""

    file: BinaryIO
    headers: Mapping[str, str]


def body_of(parts: Sequence[Part]) -> Body:
    """Return the form with these files; raise OSError if one cannot be read."""
    boundary = os.urandom(16).hex()
    file = SpooledTemporaryFile[bytes](max_size=MEMORY_BYTES)
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=COMPRESSION_LEVEL, mtime=0) as out:
        for part in parts:
            out.write(f"--{boundary}\r\n".encode() + _disposition(part.name))
            out.write(b"Content-Type: application/xml\r\n\r\n")
            for chunk in part.chunks():
                out.write(chunk)
            out.write(b"\r\n")
        out.write(f"--{boundary}--\r\n".encode())
    size = file.tell()
    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Encoding": "gzip",
        "Content-Length": str(size),
    }
    return Body(file=cast(BinaryIO, file), headers=headers)


def _disposition(name: str) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    plain = raw.replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")
    # A name that a reader might decode has the form that leaves no doubt, too (RFC 5987).
    extended = f"; filename*=UTF-8''{quote(raw, safe='')}".encode() if plain != raw or set(b"%\\=") & set(raw) else b""
    return b'Content-Disposition: form-data; name="files"; filename="' + plain + b'"' + extended + b"\r\n"
