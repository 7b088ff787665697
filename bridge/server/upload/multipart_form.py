"""Parse the multipart form of an upload as it arrives, with a limit for every part."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from multipart import MultipartError, ParserLimitReached, PushMultipartParser, parse_options_header  # type: ignore[import-untyped]  # the package brings no type marker

from bridge.domain.text_format import quote_for_display
from bridge.errors import BadParameter, BadReport, BridgeError, TooLarge, UnknownEncoding
from bridge.server.compression.transfer_encoding import transfer_decoder
from bridge.server.http.file_names import decode_in_charset, decode_text, file_name
from bridge.server.http.requests import FILE_FIELD, METADATA_NAMES, add_parameter

CHARSET_FIELD: Final = "_charset_"
"""The charset of the text fields of a form (RFC 7578, section 4.6)."""

TEXT_FIELDS: Final = METADATA_NAMES | {CHARSET_FIELD}

DEFAULT_NAME = "report.xml"
"""The name of a file that is sent without one."""

MAX_FIELD_BYTES = 4096  # branches and job names are far shorter; fields stay in memory
MAX_PLAIN_PARTS = 64  # parts that are not files: five are read, some tools add their own
MAX_PART_HEADER_BYTES = 8192  # enough for an escaped file name of 4 KB
MAX_FOLDED_LINES = 128  # of one header: enough for a name of 4 KB that a mail library folds at 76 characters
MAX_BOUNDARY_BYTES = 256  # RFC 2046 allows 70; some tools use more


class FileStart(NamedTuple):
    """Start of a file: its name, and the encodings in its part's headers, of which the transfer encoding is outside."""

    name: str
    content_encoding: str | None = None
    transfer_encoding: str | None = None


class _TextField(NamedTuple):
    name: str
    value: bytes
    charset: str | None


class _Parser(PushMultipartParser):  # type: ignore[misc]  # the package brings no type marker
    """Bounds the lines of a folded header: each time, the package copies those before."""

    _folded = 0

    def _on_segment_headerline(self, line: bytes) -> None:
        self._folded = self._folded + 1 if line[:1] in (b" ", b"\t") else 0
        if self._folded > MAX_FOLDED_LINES:
            raise ParserLimitReached("too many lines of one header")
        super()._on_segment_headerline(line)


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
        self._segment: Any = None  # headers of the current part
        self._field = ""  # its name
        self._value = b""
        self._texts: list[_TextField] = []
        self._in_file = False
        self._parser: Any = _Parser(
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
        """Mark the end of the body, and decode the fields."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise _form_error(error) from error
        default = next((text.value.decode("latin-1") for text in self._texts if text.name == CHARSET_FIELD), None)
        for text in self._texts:
            if text.name in METADATA_NAMES:
                add_parameter(self.fields, text.name, decode_in_charset(text.value, text.charset or default))

    def _start_part(self, segment: Any) -> FileStart | None:
        field = decode_text(segment.name.encode("latin-1"))
        self._in_file = FILE_FIELD.fullmatch(field) is not None
        self._segment, self._field, self._value = segment, field, b""
        if segment.content_type is not None and segment.content_type.startswith("multipart/"):
            raise BadParameter(
                f"The form part {quote_for_display(field)} is itself multipart. Send each file as a separate part."
            )
        name = file_name(segment.header("Content-Disposition"))
        if not self._in_file:
            if name:
                raise BadParameter(
                    f"The file {quote_for_display(name)} is in the form field "
                    f'{quote_for_display(field)}, which cannot hold files. Send it in the field "files".'
                )
            return None
        self.files += 1
        if self.files > self._max_files:
            raise TooLarge(f"The form has more than {self._max_files} files. Send them in several uploads.")
        encodings = segment.header("Content-Encoding"), segment.header("Content-Transfer-Encoding")
        return FileStart(name or DEFAULT_NAME, *encodings)

    def _extend_field(self, data: bytes) -> None:
        if self._field not in TEXT_FIELDS:
            return
        self._value += data
        if len(self._value) > MAX_FIELD_BYTES:
            raise BadParameter(
                f"The form field {quote_for_display(self._field)} is longer than {MAX_FIELD_BYTES} bytes. "
                'Send files in the field "files".'
            )

    def _end_field(self) -> None:
        if self._field not in TEXT_FIELDS:
            return
        what = f"The form field {quote_for_display(self._field)}"
        value = self._value
        try:
            decoder = transfer_decoder(self._segment.header("Content-Transfer-Encoding"), what=what)
            if decoder is not None:
                value = decoder.feed(value) + decoder.close()
        except UnknownEncoding as error:
            raise UnknownEncoding(f"{what}: {error}") from error
        except BadReport as error:
            raise BadParameter(str(error)) from error
        self._texts.append(_TextField(self._field, value, self._segment.charset))


def _boundary(content_type: str | None) -> str:
    kind, options = parse_options_header(content_type or "")
    if kind != "multipart/form-data":
        sent = f"is {quote_for_display(kind)}" if kind else "has no Content-Type"
        raise BadParameter(f"The body {sent}, not multipart/form-data. Send it like curl -F files=@report.xml.")
    boundary: str = options.get("boundary", "")
    if not boundary or len(boundary) > MAX_BOUNDARY_BYTES or not boundary.isascii():
        raise BadParameter("The boundary of the form is missing or malformed. Let the HTTP library set it.")
    return boundary


def _form_error(error: MultipartError) -> BridgeError:
    if isinstance(error, ParserLimitReached):
        return TooLarge("The form has too many parts, or a part with too large a header. Send fewer files.")
    return BadParameter("The body is not a complete multipart/form-data form. Send it like curl -F files=@report.xml.")
