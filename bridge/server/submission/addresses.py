"""The URLs that a registration returns: the address at which its client reaches the bridge, and the signed path."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from bridge.domain.instants import SECOND
from bridge.domain.submission import URL_LIFETIME, Submission
from bridge.server.http.requests import Network, is_among
from bridge.server.submission.fields import SubmissionError

FILE_PATH: Final = "/bridge/v1/uploads"
SIGNATURE: Final = "X-Amz-Signature"
"""As in a presigned URL of S3, so that programs that hide secrets in URLs hide this one too."""

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)


def outside_url(request: web.Request, trusted: Sequence[Network], *, behind_tls_proxy: bool) -> str:
    """Return scheme and host with which the client reached the bridge; headers of `trusted` proxies override both.

    Raise SubmissionError with status 400 if the Host header is no host.
    """
    scheme, host = "https" if behind_tls_proxy else request.scheme, request.host
    if _comes_from(request, trusted):
        scheme = _first(request, "X-Forwarded-Proto") or scheme
        host = _first(request, "X-Forwarded-Host") or host
    if scheme not in ("http", "https") or not _HOST.fullmatch(host):
        raise SubmissionError("The Host header is not a host.", "Send the name of the bridge in it.", status=400)
    return f"{scheme}://{host}"


def signed_url(base_url: str, submission: Submission, secret: str) -> str:
    """Return the URL for the PUT of a registered upload; any client that has it can send the file until it expires."""
    signed = datetime.fromtimestamp((submission.expires_at - URL_LIFETIME) // SECOND, UTC).strftime("%Y%m%dT%H%M%SZ")
    query = f"X-Amz-Date={signed}&X-Amz-Expires={URL_LIFETIME // SECOND}&{SIGNATURE}={secret}"
    return f"{base_url}{FILE_PATH}/{submission.id}?{query}"


def _comes_from(request: web.Request, trusted: Sequence[Network]) -> bool:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return isinstance(peer, tuple) and is_among(str(peer[0]), trusted)


def _first(request: web.Request, name: str) -> str:
    return request.headers.get(name, "").partition(",")[0].strip()
