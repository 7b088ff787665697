"""Parse the multipart form of an upload as it arrives, with a limit for every part."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from multipart import MultipartError, ParserLimitReached, PushMultipartParser, parse_options_header  # type: ignore[import-untyped]  # the package brings no type marker

from bridge.errors import BadParameter, BridgeError, TooLarge
from bridge.server.http.requests import METADATA_NAMES, add_parameter
from bridge.server.http.responses import quote_for_display

FILE_FIELDS = frozenset({"files", "file", "files[]"})
"""The reference names `files`; the others are common mistakes."""

DEFAULT_NAME = "report.xml"
"""The name of a file that is sent without one."""

MAX_FIELD_BYTES = 4096  # branches and job names are far shorter; fields stay in memory
MAX_PLAIN_PARTS = 64  # parts that are not files: five are read, some tools add their own
MAX_PART_HEADER_BYTES = 8192  # enough for an escaped file name of 4 KB
MAX_BOUNDARY_BYTES = 256  # RFC 2046 allows 70; some tools use more

_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)


class FileStart(NamedTuple):
    """Start of a file: its name, and the Content-Encoding of its part."""

    name: str
    content_encoding: str | None = None


class UploadForm:
    """Parses one multipart/form-data body.

    `feed` yields for each file a FileStart, then its content in pieces, then None. `fields` holds the other fields
    after `close`. Both methods raise BadParameter if the body is not a complete form, TooLarge if it has too many
    files.
    """

    def __init__(self, content_type: str | None, *, max_files: int) -> None:
        self.fields: dict[str, str] = {}
        self.files = 0
        self._max_files = max_files
        self._field = ""  # name of the current field
        self._value = b""
        self._in_file = False
        self._parser: Any = PushMultipartParser(
            _boundary(content_type),
            max_header_size=MAX_PART_HEADER_BYTES,
            max_segment_count=max_files + MAX_PLAIN_PARTS,
            header_charset="latin1",  # never fails; names are decoded below
        )

    def feed(self, chunk: bytes) -> Iterator[FileStart | bytes | None]:
        """Yield the events of the next piece, which must not be empty; consume them before feeding more."""
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
                elif (start := self._start_part(event)) is not None:
                    yield start
        except MultipartError as error:
            raise _form_error(error) from error

    def close(self) -> None:
        """Mark the end of the body."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise _form_error(error) from error

    def _start_part(self, segment: Any) -> FileStart | None:
        field = _decoded(segment.name)
        self._in_file = field in FILE_FIELDS
        self._field, self._value = field, b""
        if segment.content_type is not None and segment.content_type.startswith("multipart/"):
            raise BadParameter(
                f"The form part {quote_for_display(field)} is itself multipart. Send each file as a separate part."
            )
        if not self._in_file:
            if segment.filename:
                raise BadParameter(
                    f"The file {quote_for_display(_decoded(segment.filename))} is in the form field "
                    f'{quote_for_display(field)}, which cannot hold files. Send it in the field "files".'
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
        raise BadParameter(f"The body {sent}, not multipart/form-data. Send it like curl -F files=@report.xml.")
    boundary: str = options.get("boundary", "")
    if not boundary or len(boundary) > MAX_BOUNDARY_BYTES or not boundary.isascii():
        raise BadParameter("The boundary of the form is missing or malformed. Let the HTTP library set it.")
    return boundary


def _file_name(segment: Any) -> str:
    if segment.filename:
        return _decoded(segment.filename)
    # RFC 5987, used by older HTTP libraries for names beyond ASCII.
    extended = _EXTENDED_NAME.search(segment.header("Content-Disposition"))
    return unquote(extended[1]) if extended else DEFAULT_NAME


def _decoded(name: str) -> str:
    """Return a name that the parser decoded as latin1 as UTF-8; bytes that are not UTF-8 are preserved."""
    return name if name.isascii() else name.encode("latin1").decode("utf-8", "surrogateescape")


def _form_error(error: MultipartError) -> BridgeError:
    if isinstance(error, ParserLimitReached):
        return TooLarge("The form has too many parts, or a part with too large a header. Send fewer files.")
    return BadParameter("The body is not a complete multipart/form-data form. Send it like curl -F files=@report.xml.")
