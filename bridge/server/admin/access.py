"""Who may use the admin listener: operators and viewers, by token, by session, or by an authenticating proxy.

A session is a signed cookie that holds no secret. Its key comes from the tokens, so a session lasts over restarts and
at every replica, and ends when the tokens change.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from bridge.domain.callers import hash_token
from bridge.domain.instants import HOUR, SECOND
from bridge.errors import Forbidden
from bridge.server.http.requests import Network
from bridge.store.operator_actions import Actor

COOKIE: Final = "bridge_session"
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"
SESSION_US: Final = 12 * HOUR
MAX_NAME: Final = 64
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_PROCESS_KEY: Final = secrets.token_bytes(32)  # of a listener without tokens, which only this machine reaches


class Role(StrEnum):
    """What a person may do: viewers look, operators act too."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Who sent a request; `csrf` is the token that forms must send, empty if no browser can have sent the request."""

    name: str
    role: Role
    csrf: str = ""


PERSON: Final = web.RequestKey("person", Person)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminAccess:
    """The rules of the admin listener.

    `user_header` is the header in which a proxy at one of `user_header_from` names the person it has authenticated;
    `operators` are the names of those that may act, `*` for all.
    """

    operator_tokens: Sequence[str] = ()
    viewer_tokens: Sequence[str] = ()
    user_header: str = ""
    user_header_from: Sequence[Network] = ()
    operators: Sequence[str] = ()
    _key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tokens = "\n".join(["bridge console", *sorted(self.operator_tokens), "", *sorted(self.viewer_tokens)])
        key = hashlib.sha256(tokens.encode()).digest() if self.has_tokens else _PROCESS_KEY
        object.__setattr__(self, "_key", key)

    @property
    def has_tokens(self) -> bool:
        return bool(self.operator_tokens or self.viewer_tokens)

    @property
    def is_open(self) -> bool:
        """Return whether no identification is configured, so that only this machine is admitted."""
        return not self.has_tokens and not self.user_header

    # -- people --------------------------------------------------------------------------------------------------

    def role_of_token(self, token: str) -> Role | None:
        """Return the role that a token gives; None if it is not one of the listener's."""
        hashed = hash_token(token)
        found = None
        for role, tokens in ((Role.VIEWER, self.viewer_tokens), (Role.OPERATOR, self.operator_tokens)):
            for known in tokens:
                if hmac.compare_digest(hash_token(known), hashed):
                    found = role
        return found

    def person_of_proxy(self, request: web.Request) -> Person | None:
        """Return the person that an authenticating proxy names; a header from any other address is ignored."""
        name = request.headers.get(self.user_header, "") if self.user_header else ""
        if not name.isprintable() or not name or not _is_among(request.remote, self.user_header_from):
            return None
        role = Role.OPERATOR if "*" in self.operators or name in self.operators else Role.VIEWER
        return Person(name=name[:MAX_NAME], role=role, csrf=self._csrf(name))

    def local_person(self) -> Person:
        """Return the person at this machine, for a listener that identifies no one else."""
        return Person(name="local", role=Role.OPERATOR, csrf=self._csrf("local"))

    # -- sessions ------------------------------------------------------------------------------------------------

    def new_session(self, name: str, role: Role, now: int) -> str:
        """Return the cookie of a session that begins at `now` (microseconds UTC)."""
        shown = urlsafe_b64encode((name or role)[:MAX_NAME].encode()).decode().rstrip("=")
        content = f"{(now + SESSION_US) // SECOND}.{role}.{shown}.{secrets.token_urlsafe(9)}"
        return f"{content}.{self._mac(content)}"

    def person_of_session(self, cookie: str, now: int) -> Person | None:
        """Return who signed in with this cookie; None if it is not valid (any more)."""
        content, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(_bytes(mac), _bytes(self._mac(content))):
            return None
        ends, role, shown, _ = content.split(".")
        if int(ends) * SECOND <= now:
            return None
        name = urlsafe_b64decode(shown + "=" * (-len(shown) % 4)).decode()
        return Person(name=name, role=Role(role), csrf=self._csrf(content))

    def _mac(self, content: str) -> str:
        return hmac.new(self._key, _bytes(content), hashlib.sha256).hexdigest()

    def _csrf(self, content: str) -> str:
        return self._mac(f"csrf {content}")


def actor_of(request: web.Request) -> Actor:
    """Return who sent a request, for the audit log."""
    person = request.get(PERSON, Person(name="unknown", role=Role.VIEWER))
    return Actor(name=person.name, role=person.role, address=request.remote or "")


def require_same_site(request: web.Request) -> None:
    """Raise Forbidden if a browser sends this request for a page of another site."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "none")
    foreign = origin is not None and urlsplit(origin).netloc != request.host
    if foreign or site not in ("same-origin", "none"):
        raise Forbidden("A page of another site sent this request. Open the console itself, and act there.")


def require_own_page(request: web.Request) -> None:
    """Raise Forbidden if a page of another site embeds this request; a link from it is followed."""
    foreign = request.headers.get("Sec-Fetch-Site") == "cross-site"
    if foreign and request.headers.get("Sec-Fetch-Mode") != "navigate":
        raise Forbidden("A page of another site sent this request. Open the console itself.")


def require_csrf(person: Person, sent: str | None) -> None:
    """Raise Forbidden unless the form came from a page that the console made for this person."""
    if person.csrf and not hmac.compare_digest(_bytes(person.csrf), _bytes(sent or "")):
        raise Forbidden("This form is out of date, because the session has changed. Reload the page and try again.")


def require_operator(person: Person) -> None:
    """Raise Forbidden unless the person may act."""
    if person.role is not Role.OPERATOR:
        raise Forbidden(f"{person.name} may look, but not act. Ask an operator, or sign in with admin.token.")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a header may have bytes that are not UTF-8


def _is_among(address: str | None, networks: Sequence[Network]) -> bool:
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    return any(found in network for network in networks)
