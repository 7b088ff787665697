"""Check the form of a coverage upload while it is forwarded: it must name no other build than its query.

Servers read a parameter from the query or from the form. With the bridge's credentials, a field of the form could name
a job that is not of the caller's routes.
"""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web
from multipart import MultipartError, PushMultipartParser  # type: ignore[import-untyped]  # the package brings no type marker

from bridge.domain.routing import canonical_job_id
from bridge.domain.text_format import quote_for_display
from bridge.errors import BadParameter
from bridge.server.auth.authenticator import AuthResult
from bridge.server.http.requests import FILE_FIELD
from bridge.server.proxy.authorization import COVERAGE_PARAMETERS
from bridge.server.proxy.request_target import RequestTarget

MAX_HEADER_BYTES: Final = 8192  # of a line in the head of a part: enough for an escaped file name of 4 KB
MAX_VALUE_BYTES: Final = 64  # of a parameter; the longest has 32 characters
MAX_END_BYTES: Final = 1024  # from the end of the form on; usually a line break

_CONTENT_TYPE: Final = re.compile(
    r"multipart/form-data\s*(?:;\s*charset=[\w-]+\s*)?;\s*boundary=(\"?)([A-Za-z0-9'()+_,./:=?-]{1,200})\1\s*"
    r"(?:;\s*charset=[\w-]+\s*)?",
    re.IGNORECASE | re.ASCII,
)
_NAMES: Final = re.compile(r"(?i)(?<![\w-])name[\s*\d]*=")
_NAME: Final = re.compile(r"(?i)(?<![\w-])name=(\"?)([\w\[\]]+)\1\s*(?:;|$)", re.ASCII)
_PLAIN_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})
_REMEDY: Final = "Send it like curl -F files=@coverage.xml."


class CoverageForm:
    """The form of one coverage upload; `query` is what its parameters must repeat.

    Feed each piece of the body. What comes back may be forwarded. The end of the form only comes back from `finish`,
    so that a form with a fault never arrives whole. Raises BadParameter.
    """

    def __init__(self, content_type: str, query: Mapping[str, str]) -> None:
        found = _CONTENT_TYPE.fullmatch(content_type.strip())
        if found is None or not re.search(r"\w", found[2]):
            raise BadParameter(f"The coverage upload is no form, or its boundary has two readings. {_REMEDY}")
        self._query = query
        self._mark = b"--" + found[2].encode("ascii")
        self._marks = 0  # in the body, wherever they are
        self._parts = 0
        self._field = ""  # the parameter that the current part has; empty for a file
        self._value = b""
        self._held = b""
        self._ended = False
        self._parser: Any = PushMultipartParser(
            found[2], max_header_size=MAX_HEADER_BYTES, header_charset="latin1", strict=True
        )

    def feed(self, piece: bytes) -> bytes:
        """Return what may be forwarded after the next piece, which is not empty."""
        searched, self._held = self._held + piece, b""
        if self._ended:
            self._hold(searched)
            return b""
        try:
            for event in self._parser.parse(piece):
                self._read(event)
        except MultipartError as error:
            raise _malformed() from error
        end = searched.find(self._mark + b"--")
        self._ended = end >= 0
        if self._ended:
            self._hold(searched[end:])
        else:
            end = max(0, len(searched) - len(self._mark) - 1)
            self._held = searched[end:]
        self._marks += searched.count(self._mark, 0, end + len(self._mark) - 1)
        return searched[:end]

    def finish(self) -> bytes:
        """Return the end of the form; raise BadParameter unless it is complete and has one reading."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise _malformed() from error
        if self._marks + self._held.count(self._mark) != self._parts + 1:
            raise BadParameter(
                "The coverage upload has the boundary of its form in a file, so it could be read in two ways. "
                "Let the HTTP library set the boundary."
            )
        return self._held

    def _hold(self, end: bytes) -> None:
        self._held = end
        if len(end) > MAX_END_BYTES:
            raise BadParameter(f"The coverage upload goes on after the end of its form. {_REMEDY}")

    def _read(self, event: Any) -> None:
        if isinstance(event, bytes):
            if self._field:
                self._value += event
                if len(self._value) > MAX_VALUE_BYTES:
                    self._reject_value()
        elif event is None:
            if self._field:
                self._check_value()
        else:
            self._start_part(event)

    def _start_part(self, segment: Any) -> None:
        self._parts += 1
        dispositions = [value for name, value in segment.headerlist if name == "Content-Disposition"]
        names = _NAMES.findall(dispositions[0])
        found = _NAME.search(dispositions[0])
        kind = (segment.header("Content-Type") or "").strip().lower()
        if len(dispositions) != 1 or len(names) != 1 or found is None or kind.startswith("multipart/"):
            raise BadParameter(f"A part of the coverage upload has no name with one reading. {_REMEDY}")
        name = found[2]
        self._field, self._value = "" if FILE_FIELD.fullmatch(name) else name, b""
        if not self._field:
            return
        encoding = (segment.header("Content-Transfer-Encoding") or "").strip().lower()
        if name not in COVERAGE_PARAMETERS or encoding not in _PLAIN_ENCODINGS:
            raise BadParameter(
                f"The form of the coverage upload has the field {quote_for_display(name)}. "
                'Send only files, in the field "files".'
            )

    def _check_value(self) -> None:
        name, value = self._field, self._value.decode("latin-1").strip()
        stated = self._query.get(name, "").strip()
        if name == "job_id":
            value, stated = canonical_job_id(value), canonical_job_id(stated)
        if value != stated and (name != "node_id" or stated):
            self._reject_value()

    def _reject_value(self) -> None:
        raise BadParameter(
            f"The form of the coverage upload has another {self._field} than its query, or one that the query lacks. "
            "Send it in the query only."
        )


def coverage_form(request: web.Request, target: RequestTarget) -> CoverageForm:
    """Return the check of the form that a request brings; raise BadParameter if its headers show that it is none."""
    types = request.headers.getall("Content-Type", [])
    if len(types) != 1:
        raise BadParameter(f"The coverage upload needs one Content-Type. {_REMEDY}")
    codings = {coding.strip().lower() for coding in request.headers.getall("Content-Encoding", [])}
    if codings - {"", "identity"}:
        raise BadParameter("The coverage upload is compressed as a whole. Send it without Content-Encoding.")
    return CoverageForm(types[0], dict(parse_qsl(target.query, keep_blank_values=True)))


async def checked(
    pieces: AsyncIterator[bytes], form: CoverageForm, identity: AuthResult | None
) -> AsyncIterator[bytes]:
    """Yield a body as it may be forwarded; its end only if the form is, and if it was signed, with this body."""
    async for piece in pieces if identity is None else identity.feed_body(pieces):
        if allowed := form.feed(piece):
            yield allowed
    end = form.finish()
    if identity is not None:
        await identity.body.finish()
    yield end


def _malformed() -> BadParameter:
    return BadParameter(f"The coverage upload is not a complete form. {_REMEDY}")
