"""Read requests: path, parameters and metadata of an upload, bodies within limits, and the address of the client.

Reference: POST /v1/report/junit/report/upload, table 1.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import parse_qsl, unquote

from aiohttp import HttpVersion11, StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_protocol import RequestPayloadError
from multidict import MultiMapping

from bridge.domain.build import BuildNo, UploadMetadata
from bridge.domain.routing import canonical_job_id
from bridge.domain.submission import submitted_build_no
from bridge.domain.text_format import quote_for_display
from bridge.errors import BadParameter, TooLarge, Unavailable
from bridge.server.http.file_names import decode_text
from bridge.values import dataclass

UPLOAD_PATH = "/v1/report/junit/report/upload"

OTHER_UPLOADS = frozenset({"coverage", "integrations"})
"""Words in paths of other uploads: CodeArts' coverage, TestNod's submission API."""

MAX_BUILD_NO = 2**31 - 1  # CodeArts counts in a 32-bit integer
MAX_METADATA_CHARACTERS = 1024  # git rejects longer branch names
DEFAULT_NODE = "default"

METADATA_NAMES = frozenset({"branch", "commit", "project_id", "job_name", "complete", "detail"})
"""Optional parameters of query or form, beside those that identify the build."""

FILE_FIELD: Final = re.compile(r"files?(\[[0-9]*\])?")
"""Fields of a form that hold files. The reference names `files`; the others are common mistakes, `files[0]` of
libraries that number them."""

_BUILD_NAMES = frozenset({"job_id", "build_no", "node_id"})

_NO_METADATA = (UploadMetadata(), False)
_JOB_ID = re.compile(r"[0-9a-zA-Z]{32}", re.ASCII)
_BUILD_NO = re.compile(r"[0-9]{1,10}", re.ASCII)
_BUILDNUMBER = re.compile(r"[0-9]{8}\.[0-9]+", re.ASCII)
_NODE_ID = re.compile(r"[0-9A-Za-z-]{1,32}", re.ASCII)
_VARIABLE = re.compile(r"\$\w+")
_NOT_STORABLE = re.compile(r"[\x00\ud800-\udfff]")
"""PostgreSQL cannot store NUL or a lone surrogate."""

_COMPLETE = {"": False, "false": False, "true": True}

_JOB_ID_REMEDY = "Take the 32 characters at the end of the build task's page address."
_BUILD_NO_REMEDY = "Use INCREASENUM, the counter of the build task's runs."


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """The build, and the node of its build task, that an upload belongs to."""

    job_id: str
    build_no: int
    node_id: str


def query_pairs(request: web.Request) -> Iterator[tuple[str, str]]:
    """Yield names and values of a query, whose bytes need not be UTF-8 (`file_names.decode_text`)."""
    query = request.rel_url.raw_query_string
    if query.isascii() and "%" not in query and "+" not in query:  # nothing to decode, as in most uploads
        for pair in filter(None, query.split("&")):
            name, _, value = pair.partition("=")
            yield name, value
        return
    for name, value in parse_qsl(query, keep_blank_values=True, encoding="latin-1"):
        yield name, decode_text(value.encode("latin-1"))


def read_query(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the known parameters of a query; raise BadParameter if one has two different values."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in _BUILD_NAMES or name in METADATA_NAMES:
            add_parameter(values, name, value)
    return values


def add_parameter(values: dict[str, str], name: str, value: str) -> None:
    """Add a value; raise BadParameter if `name` has another value already, because it is unclear which one is meant."""
    before = values.setdefault(name, value)
    if before.strip() != value.strip():
        raise BadParameter(
            f"{name} is given twice, as {quote_for_display(before)} and as {quote_for_display(value)}. Send it once."
        )


def read_parameters(query: Mapping[str, str]) -> Parameters:
    """Return the query's parameters; raise BadParameter that names the first one that is missing or malformed."""
    return Parameters(job_id=_job_id(query), build_no=_build_no(query), node_id=_node_id(query))


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildName:
    """The build that someone asks for; `fault` is why it can only be a submitted build, None if it is of CodeArts."""

    job_id: str
    build_no: BuildNo
    fault: BadParameter | None = None

    def require(self, *, found: bool) -> None:
        """Raise the fault unless there is such a submitted build: it was meant to be a build of CodeArts."""
        if self.fault is not None and not found:
            raise self.fault


def is_job_id(text: str) -> bool:
    """Return whether `text` has the form of a job id of CodeArts."""
    return _JOB_ID.fullmatch(text) is not None


def read_build_name(query: Mapping[str, str]) -> BuildName:
    """Return the build that job_id and build_no name: those of CodeArts, or route and build_id of a submitted build.

    Raise BadParameter if one of them is missing.
    """
    try:
        return BuildName(job_id=_job_id(query), build_no=_build_no(query))
    except BadParameter as error:
        job_id, build_no = _expanded("job_id", query), _expanded("build_no", query)
        if not (job_id and build_no):
            raise
        return BuildName(job_id=job_id, build_no=submitted_build_no(build_no), fault=error)


def read_metadata(query: Mapping[str, str], form: Mapping[str, str]) -> tuple[UploadMetadata, bool]:
    """Return the metadata of an upload, and whether the build is complete; the query overrides the form."""
    if METADATA_NAMES.isdisjoint(query) and METADATA_NAMES.isdisjoint(form):
        return _NO_METADATA
    metadata = UploadMetadata(
        branch=_metadata("branch", query, form),
        commit=_metadata("commit", query, form),
        project_id=_metadata("project_id", query, form),
        job_name=_metadata("job_name", query, form),
    )
    value = _metadata("complete", query, form) or ""
    complete = _COMPLETE.get(value.lower())
    if complete is None:
        raise BadParameter(
            f"complete is {quote_for_display(value)}, which is neither true nor false. Omit it, or send true."
        )
    return metadata, complete


def wants_files(query: Mapping[str, str], form: Mapping[str, str]) -> bool:
    """Return whether the answer to an upload shall list its files; raise BadParameter if `detail` is malformed."""
    value = (query.get("detail") or form.get("detail") or "").strip()
    if value not in ("", "files"):
        raise BadParameter(f"detail is {quote_for_display(value)}, which is not known. Omit it, or send files.")
    return value == "files"


def claimed_build(query: MultiMapping[str]) -> tuple[str | None, int | None]:
    """Return job id and build number of any query, as far as they are well-formed and given once."""
    values: dict[str, str] = {}
    for name in ("job_id", "build_no"):
        given = {value.strip() for value in query.getall(name, [])}
        values[name] = given.pop() if len(given) == 1 else ""
    job_id, build_no = None, None
    with suppress(BadParameter):
        job_id = _job_id(values)
    with suppress(BadParameter):
        build_no = _build_no(values)
    return job_id, build_no


def _job_id(query: Mapping[str, str]) -> str:
    value = _expanded("job_id", query)
    if not value:
        raise BadParameter(f"job_id is missing. {_JOB_ID_REMEDY}")
    if not _JOB_ID.fullmatch(value):
        raise BadParameter(f"job_id is {quote_for_display(value)}, not 32 digits and letters. {_JOB_ID_REMEDY}")
    return canonical_job_id(value)


def _build_no(query: Mapping[str, str]) -> int:
    value = _expanded("build_no", query)
    if not value:
        raise BadParameter(f"build_no is missing. {_BUILD_NO_REMEDY}")
    if _BUILDNUMBER.fullmatch(value):
        raise BadParameter(f"build_no is {quote_for_display(value)}, which is BUILDNUMBER. {_BUILD_NO_REMEDY}")
    if not _BUILD_NO.fullmatch(value) or not 1 <= int(value) <= MAX_BUILD_NO:
        shown = quote_for_display(value)
        raise BadParameter(f"build_no is {shown}, not a whole number from 1 to {MAX_BUILD_NO}. {_BUILD_NO_REMEDY}")
    return int(value)


def _node_id(query: Mapping[str, str]) -> str:
    value = _expanded("node_id", query) or DEFAULT_NODE
    if not _NODE_ID.fullmatch(value):
        raise BadParameter(
            f"node_id is {quote_for_display(value)}, not 1 to 32 digits, letters and hyphens. "
            "Take node_id from the task's full stages, or omit it."
        )
    return value


def _metadata(name: str, query: Mapping[str, str], form: Mapping[str, str]) -> str | None:
    value = _expanded(name, query) or _expanded(name, form)
    if len(value) > MAX_METADATA_CHARACTERS:
        raise BadParameter(f"{name} is longer than {MAX_METADATA_CHARACTERS} characters. Send only the name.")
    if _NOT_STORABLE.search(value):
        raise BadParameter(f"{name} is {quote_for_display(value)}, with a NUL or a lone surrogate. Remove it.")
    return value or None


def _expanded(name: str, values: Mapping[str, str]) -> str:
    value = values.get(name, "").strip()
    if "$" in value and _is_unexpanded(value):
        raise BadParameter(
            f"{name} is {quote_for_display(value)}, a variable that was not expanded. "
            "Define it for the build task, or correct the quoting in the shell."
        )
    return value


def _is_unexpanded(value: str) -> bool:
    """Return whether `value` is `$NAME`, or has `${…}` in it: searched once, however often it has `${`."""
    return 0 <= value.find("${") < value.rfind("}") or _VARIABLE.fullmatch(value) is not None


# -- the upload path ---------------------------------------------------------------------------------------------


MAX_WORDS_CHARACTERS = 256
"""Of a path, in which words are compared. Comparing all words of a long path would take as long as an upload."""


def resembles_upload_path(request: web.Request) -> bool:
    """Return whether a request to another path was probably meant to be an upload; CodeArts has no such path.

    Its path has a word like "upload" beside one like "junit" or "report", or it sends something to "junit", or it is a
    form for a build. Misspelled words count too.
    """
    words = re.findall(r"[a-z]+", unquote(request.path[:MAX_WORDS_CHARACTERS]).casefold())
    if not OTHER_UPLOADS.isdisjoint(words):
        return False

    def has(*wanted: str) -> bool:
        return any(get_close_matches(word, wanted, n=1, cutoff=0.75) for word in words)

    sends = request.method in ("POST", "PUT", "PATCH")
    is_form = media_type(request) == "multipart/form-data" and None not in claimed_build(request.query)
    return (has("upload") and has("junit", "report")) or (sends and (has("junit") or is_form))


# -- bodies: bytes are counted as received, before any decompression --------------------------------------------


STALL_SECONDS = 30.0
"""The longest wait for the next bytes: a pause of a CI network, not a client that keeps its connection open."""

MIN_BYTES_PER_SECOND = 1024
"""A body that is slower than this after the first STALL_SECONDS is rejected: it would hold a slot for hours."""

MAX_SECONDS = 12 * 3600.0
"""The longest time for a body of any size. The cleanup moves files without a row aside after a day, and the first file
of a form is in the spool without a row until the last one has arrived."""

MAX_SMALL_SECONDS = 60.0
"""The longest time for a body that is read as a whole: at most 1 MiB, and usually some KiB in one packet."""


_CONTINUED: Final = web.RequestKey("continued", bool)


async def handle_expect(_request: web.Request) -> None:
    """Leave "100-continue" to `content_of`. `Connection` answers every other expectation."""


def media_type(request: web.Request) -> str:
    """Return the media type of a request's body in lower case, without its parameters.

    `request.content_type` parses the parameters too. For hostile ones that takes a minute, and blocks the event loop.
    """
    stated = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    return stated or "application/octet-stream"  # RFC 9110, section 8.3


async def content_of(request: web.Request) -> StreamReader:
    """Return the body to read, after "100 Continue" if the client waits for it: a rejection comes before the body."""
    if request.headers.get(hdrs.EXPECT) and request.version >= HttpVersion11 and _CONTINUED not in request:
        request[_CONTINUED] = True
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # else aiohttp takes these bytes for the start of the response
    return request.content


async def read_body(
    content: StreamReader,
    *,
    max_bytes: int | None,
    stall_seconds: float = STALL_SECONDS,
    max_seconds: float = MAX_SECONDS,
) -> AsyncIterator[bytes]:
    """Yield the body in the pieces in which it arrives.

    Raise TooLarge after `max_bytes` (None: any size), BadParameter if its framing is broken, Unavailable if it is
    slower than MIN_BYTES_PER_SECOND or takes longer than `max_seconds`, and ConnectionError if the client leaves.
    """
    now = asyncio.get_running_loop().time
    received, waited = 0, 0.0
    ends_at = now() + max_seconds
    while True:
        try:
            piece = content.read_nowait()
            if not piece and not content.at_eof():
                patience = min(stall_seconds, stall_seconds + received / MIN_BYTES_PER_SECOND - waited)
                began = now()
                async with asyncio.timeout(min(patience, ends_at - began)):
                    piece = await content.readany()
                waited += now() - began
        except TimeoutError as error:
            raise Unavailable("The upload arrived too slowly, so nothing of it was stored. Send it again.") from error
        except (HttpProcessingError, RequestPayloadError) as error:
            raise BadParameter("The body's framing is broken, so nothing of it was stored. Send it again.") from error
        if not piece:
            return
        received += len(piece)
        if max_bytes is not None and received > max_bytes:
            raise too_large(max_bytes)
        yield piece


async def read_small_body(content: StreamReader, *, max_bytes: int, remedy: str) -> bytes:
    """Return a whole body of some KiB; raise as `read_body`, with `remedy` in the message if it exceeds `max_bytes`."""
    try:
        pieces = read_body(content, max_bytes=max_bytes, max_seconds=MAX_SMALL_SECONDS)
        return b"".join([piece async for piece in pieces])
    except TooLarge as error:
        raise TooLarge(f"The body is larger than {max_bytes} bytes. {remedy}") from error


def too_large(max_bytes: int) -> TooLarge:
    """Return the error for a request that exceeds the limit."""
    return TooLarge(
        f"The upload is larger than {max_bytes} bytes, so nothing of it was stored. "
        "Send the reports in several uploads."
    )


# -- the client's address: X-Forwarded-For counts only if it comes from a trusted proxy --------------------------


HEADER = "X-Forwarded-For"

MAX_HOPS = 32
"""Addresses read from the end of the header; a longer chain of proxies is not plausible."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def read_networks(trusted: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks of `server.trusted_proxies`."""
    return tuple(ip_network(network) for network in trusted)


def forwarded(trusted: Callable[[], Sequence[Network]]) -> Middleware:
    """Return a middleware that sets `request.remote` to the client's address; `trusted` returns the current proxies."""

    @web.middleware
    async def set_remote(request: web.Request, handler: Handler) -> web.StreamResponse:
        networks = trusted()
        if networks and request.remote is not None:
            client = client_address(request.remote, request.headers.getall(HEADER, []), networks)
            if client != request.remote:
                request = request.clone(remote=client)
        return await handler(request)

    return set_remote


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the last address in the chain that is not in `trusted`, or the first one if all are.

    If an entry cannot be read, the address of the proxy that added it is returned.
    """
    address = peer
    hops = [hop for line in forwarded_for for hop in line.split(",")]
    for hop in reversed(hops[-MAX_HOPS:]):
        if not is_among(address, trusted) or (next_address := _read(hop)) is None:
            break
        address = str(next_address)
    return address


def network_of(address: str | None) -> str:
    """Return what counts as one origin in limits for each address: an IPv4 address, or the /64 of an IPv6 address."""
    read = _read(address or "")
    if isinstance(read, IPv6Address):
        return str(IPv6Network((read, 64), strict=False))
    return address or "" if read is None else str(read)


def is_among(address: str | None, networks: Sequence[Network]) -> bool:
    """Return whether an address is in one of the networks."""
    read = _read(address or "")
    return read is not None and any(read in network for network in networks)


def _read(text: str) -> Address | None:
    """Return the address in `text`, with or without a port; an IPv4-mapped IPv6 address becomes the IPv4 address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
