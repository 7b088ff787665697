"""Who may use the admin listener: operators and viewers, by token, by session, or by an authenticating proxy."""

import hmac
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from aiohttp import web

from bridge.domain.callers import hash_token
from bridge.errors import Forbidden, Unauthenticated
from bridge.server.http.requests import Network, is_among
from bridge.store.operator_actions import Actor
from bridge.values import dataclass

CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"
MAX_NAME: Final = 64
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

LOCAL: Final = "this machine, without identification"
"""How the name "local" was proven."""


class Role(StrEnum):
    """What a person may do: viewers look, operators act too."""

    VIEWER = "viewer"
    OPERATOR = "operator"


STRONGEST_FIRST: Final = (Role.OPERATOR, Role.VIEWER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Who sent a request, and how the name was proven, for the audit log.

    `csrf` is the token that forms must send, empty if no browser can have sent the request.
    """

    name: str
    role: Role
    proof: str
    csrf: str = ""


PERSON: Final = web.RequestKey("person", Person)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminAccess:
    """The rules of the admin listener.

    `user_header` is the header in which a proxy at one of `user_header_from` names the person it has authenticated;
    `operators` are the names of those that may act, `*` for all. `proxies` are trusted to state whether a browser sent
    a request over TLS.
    """

    operator_tokens: Sequence[str] = ()
    viewer_tokens: Sequence[str] = ()
    user_header: str = ""
    user_header_from: Sequence[Network] = ()
    operators: Sequence[str] = ()
    proxies: Sequence[Network] = ()

    @property
    def has_tokens(self) -> bool:
        return bool(self.operator_tokens or self.viewer_tokens)

    @property
    def is_open(self) -> bool:
        """Return whether no identification is configured, so that only this machine is admitted."""
        return not self.has_tokens and not self.user_header

    def tokens_of(self, role: Role) -> Sequence[str]:
        """Return the tokens that give a role."""
        return self.operator_tokens if role is Role.OPERATOR else self.viewer_tokens

    def role_of_token(self, token: str) -> Role | None:
        """Return the role that a token gives; None if it is not one of the listener's."""
        hashed = hash_token(token)
        matches = [
            role
            for role in STRONGEST_FIRST
            for known in self.tokens_of(role)
            if hmac.compare_digest(hash_token(known), hashed)
        ]
        return matches[0] if matches else None

    def person_of_proxy(self, request: web.Request) -> Person | None:
        """Return the person that an authenticating proxy names; a header from any other address is ignored.

        Raise Unauthenticated if the proxy sends more than one name: one of them came from the person, and others may
        read another one than the bridge.
        """
        header = self.user_header
        if not header or not is_among(request.remote, self.user_header_from):
            return None
        names = request.headers.getall(header, [""])
        if len(names) > 1 or not names[0].isprintable():
            raise Unauthenticated(
                f"The proxy sent {'several lines' if len(names) > 1 else 'an unprintable value'} of {header}, so it is "
                "not certain who sent this request. Have the proxy replace the header that it receives by its own."
            )
        name = names[0].strip()
        if not name:
            return None
        role = Role.OPERATOR if "*" in self.operators or name in self.operators else Role.VIEWER
        return Person(name=name[:MAX_NAME], role=role, proof=f"{header} from {request.remote}")

    def is_encrypted(self, request: web.Request) -> bool:
        """Return whether the browser sent a request over TLS: to this listener, or to one of the trusted proxies."""
        if request.secure or not is_among(request.remote, self.proxies):
            return request.secure
        scheme = request.headers.get("X-Forwarded-Proto", "").partition(",")[0]  # the one that the browser used
        return scheme.strip().lower() == "https"


def actor_of(request: web.Request) -> Actor:
    """Return who sent a request, for the audit log."""
    person = request.get(PERSON, Person(name="unknown", role=Role.VIEWER, proof=""))
    return Actor(name=person.name, role=person.role, address=request.remote or "", proof=person.proof)


def require_same_site(request: web.Request) -> None:
    """Raise Forbidden if a browser sends this request for a page of another site."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "none")
    foreign = origin is not None and origin.partition("://")[2] != request.host
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
