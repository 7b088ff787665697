"""The upload's form: bytes of a multipart body in, files and small fields out, every part bounded.

It knows neither sockets, nor the spool, nor what a report is.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from multipart import (  # type: ignore[import-untyped]  # the package brings no type marker
    MultipartError,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from bridge.errors import BadParameter, BridgeError, TooLarge
from bridge.server.http.parameters import METADATA_NAMES, add_parameter
from bridge.server.http.responses import quote_for_display

FILE_FIELDS = frozenset({"files", "file", "files[]"})
"""The reference says `files`; the others are what people write instead."""

NAMELESS = "report.xml"
"""The name of a file that was sent without one."""

MAX_FIELD_BYTES = 4096  # branches and job names are far shorter; a field is kept in memory
MAX_PLAIN_PARTS = 64  # parts that are no files: five are read, some tools add their own
MAX_PART_HEADER_BYTES = 8192  # a file name of 4 KB, escaped, still fits
MAX_BOUNDARY_BYTES = 256  # RFC 2046 allows 70; some tools take more

_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)


class FileStart(NamedTuple):
    """A file begins: its name, and the Content-Encoding of its part."""

    name: str
    content_encoding: str | None = None


class UploadForm:
    """Reads one multipart/form-data body as it arrives.

    `feed` yields, for each file, a FileBegun, then its content (bytes, in pieces), then None.
    `fields` holds what the form said, whole once `close` has returned.
    Both raise BadParameter for a body that is not such a form, and TooLarge when it has too many files.
    """

    def __init__(self, content_type: str | None, *, max_files: int) -> None:
        self.fields: dict[str, str] = {}
        self.files = 0
        self._max_files = max_files
        self._field = ""  # the field that is being read
        self._value = b""
        self._in_file = False
        self._parser: Any = PushMultipartParser(
            _boundary(content_type),
            max_header_size=MAX_PART_HEADER_BYTES,
            max_segment_count=max_files + MAX_PLAIN_PARTS,
            header_charset="latin1",  # never fails; names are decoded below
        )

    def feed(self, chunk: bytes) -> Iterator[FileStart | bytes | None]:
        """Read the next non-empty piece of the body; the events must be consumed before the next is fed."""
        try:
            for event in self._parser.parse(chunk):
                if isinstance(event, bytes):
                    if self._in_file:
                        yield event
                    else:
                        self._extend_field(event)
                elif event is None:
                    if self._in_file:
                        yield None
                    else:
                        self._end_field()
                elif (begun := self._begin_part(event)) is not None:
                    yield begun
        except MultipartError as error:
            raise _refused(error) from error

    def close(self) -> None:
        """Say that the body has ended."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise _refused(error) from error

    def _begin_part(self, segment: Any) -> FileStart | None:
        field = _decoded(segment.name)
        self._in_file = field in FILE_FIELDS
        self._field, self._value = field, b""
        if segment.content_type is not None and segment.content_type.startswith("multipart/"):
            raise BadParameter(
                f"The form's part {quote_for_display(field)} is itself multipart. Send each file as a part of its own."
            )
        if not self._in_file:
            if segment.filename:
                raise BadParameter(
                    f"The file {quote_for_display(_decoded(segment.filename))} stands in the form field {quote_for_display(field)}, "
                    'which takes none. Send it in the field "files".'
                )
            return None
        self.files += 1
        if self.files > self._max_files:
            raise TooLarge(f"The form has more than {self._max_files} files. Send them in several uploads.")
        return FileStart(_file_name(segment), segment.header("Content-Encoding"))

    def _extend_field(self, data: bytes) -> None:
        if self._field not in METADATA_NAMES:
            return
        self._value += data
        if len(self._value) > MAX_FIELD_BYTES:
            raise BadParameter(
                f"The form field {quote_for_display(self._field)} is longer than {MAX_FIELD_BYTES} bytes. "
                'Send files in the field "files".'
            )

    def _end_field(self) -> None:
        if self._field in METADATA_NAMES:
            add_parameter(self.fields, self._field, self._value.decode("utf-8", "replace"))


def _boundary(content_type: str | None) -> str:
    kind, options = parse_options_header(content_type or "")
    if kind != "multipart/form-data":
        sent = f"is {quote_for_display(kind)}" if kind else "has no Content-Type"
        raise BadParameter(f"The body {sent}, not a multipart/form-data form. Send it like curl -F files=@report.xml.")
    boundary: str = options.get("boundary", "")
    if not boundary or len(boundary) > MAX_BOUNDARY_BYTES or not boundary.isascii():
        raise BadParameter("The form's boundary is missing or malformed. Let the HTTP library write the Content-Type.")
    return boundary


def _file_name(segment: Any) -> str:
    if segment.filename:
        return _decoded(segment.filename)
    # RFC 5987, as older HTTP libraries write names beyond ASCII.
    extended = _EXTENDED_NAME.search(segment.header("Content-Disposition"))
    return unquote(extended[1]) if extended else NAMELESS


def _decoded(name: str) -> str:
    """Undo the parser's latin1: names are UTF-8 nearly always, and kept byte for byte where they are not."""
    return name if name.isascii() else name.encode("latin1").decode("utf-8", "surrogateescape")


def _refused(error: MultipartError) -> BridgeError:
    if isinstance(error, ParserLimitReached):
        return TooLarge("The form has too many parts, or a part with too large a header. Send fewer files at once.")
    return BadParameter(
        "The body is not a whole multipart/form-data form. Send it again, like curl -F files=@report.xml."
    )
