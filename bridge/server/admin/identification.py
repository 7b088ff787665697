"""Identify the person behind each request to the admin listener, and keep the console's sessions in the ledger.

A session's cookie is random, so nothing can be guessed from it. It ends after its time, when the person signs out, and
when its token is removed from the settings.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from aiohttp import hdrs, web

from bridge.clock import Clock
from bridge.domain.callers import AuthScheme, Caller, Credential, hash_token
from bridge.domain.instants import HOUR
from bridge.errors import Unauthenticated, Unavailable
from bridge.server.admin.access import LOCAL, MAX_NAME, STRONGEST_FIRST, AdminAccess, Person, Role
from bridge.server.auth.authenticator import Authenticator, presented_token
from bridge.store.admin_sessions import AdminSession, begin_sessions, end_sessions, find_session, shared_secrets
from bridge.store.engine.base import Database

COOKIE: Final = "bridge_session"
SESSION_US: Final = 12 * HOUR
CSRF_KEY: Final = "csrf"
"""The name of the secret in the ledger, from which the CSRF tokens of people without a session come."""

_COOKIE: Final = re.compile(rf"(?:^|;)[ \t]*{COOKIE}=([\w-]+)[ \t]*(?:;|$)", re.ASCII)
_SETTINGS: Final = {Role.OPERATOR: "admin.token", Role.VIEWER: "admin.viewer_token"}
_CALLER: Final = Caller(scheme=AuthScheme.TOKEN, name="", routes=None, scopes=frozenset({"status"}))


class Identification:
    """Identifies people by the rules that `access` returns for a new request."""

    def __init__(self, *, database: Database, access: Callable[[], AdminAccess], clock: Clock) -> None:
        self._database = database
        self._access = access
        self._clock = clock
        self._process_secret = secrets.token_bytes(32)
        self._shared_secret = b""  # until it is needed

    async def identify(self, request: web.Request) -> Person:
        """Return the person; raise Unauthenticated, and Unavailable if the ledger cannot be read."""
        rules = self._access()
        if (person := rules.person_of_proxy(request)) is not None:
            return replace(person, csrf=_keyed(await self._csrf_secret(), f"csrf {person.name}"))
        if rules.is_open:  # so this gateway is alone
            return Person(name="local", role=Role.OPERATOR, proof=LOCAL, csrf=_keyed(self._process_secret, "csrf"))
        try:
            person = await self._person_of_session(session_cookie(request), rules)
        except Unavailable:
            if not presented_token(request):
                raise
        return person or await self._person_of_token(request, rules)

    async def _person_of_token(self, request: web.Request, rules: AdminAccess) -> Person:
        credentials = [
            Credential(hash=hash_token(token), caller=replace(_CALLER, name=role))
            for role in STRONGEST_FIRST
            for token in rules.tokens_of(role)
        ]
        try:
            found = await Authenticator(credentials, now=self._clock.now).identify_caller(request)
        except Unauthenticated as error:
            fault = "has no token" if error.reason == "no_token" else "has another token than admin.token"
            raise Unauthenticated(
                f"This is the admin listener of the bridge, and the request {fault}. "
                "Send admin.token in the header X-Auth-Token or Authorization.",
                reason=error.reason,
            ) from error
        role = Role(found.name)
        return Person(name=role, role=role, proof=_SETTINGS[role])

    # -- sessions ------------------------------------------------------------------------------------------------

    async def begin_session(self, name: str, token: str) -> str | None:
        """Return the cookie of a new session; None if the token is not one of the listener's.

        The name is what the person states; the audit log says so.
        """
        role = self._access().role_of_token(token)
        if role is None:
            return None
        cookie = secrets.token_urlsafe(32)
        session = AdminSession(
            session_key=_session_key(cookie),
            token_proof=_token_proof(cookie, token),
            role=role,
            name=(name if name.isprintable() and name else role)[:MAX_NAME],
            expires_at=self._database.now() + SESSION_US,
        )
        await self._database.write(begin_sessions, session)
        return cookie

    async def end_session(self, request: web.Request) -> None:
        """End the session of a request, if it has one, at every replica."""
        if cookie := session_cookie(request):
            await self._database.write(end_sessions, _session_key(cookie))

    async def _person_of_session(self, cookie: str, rules: AdminAccess) -> Person | None:
        if not cookie:
            return None
        found = await self._database.read(find_session, _session_key(cookie), self._database.now())
        if found is None:
            return None
        role = Role(found.role)
        proofs = [_token_proof(cookie, token) for token in rules.tokens_of(role)]
        if not any(hmac.compare_digest(proof, found.token_proof) for proof in proofs):
            return None
        proof = f"sign-in with {_SETTINGS[role]}, name as typed"
        return Person(name=found.name, role=role, proof=proof, csrf=_keyed(_octets(cookie), "csrf"))

    async def _csrf_secret(self) -> bytes:
        """Return the key of CSRF tokens of people without a session, which all gateways of the ledger share."""
        if not self._shared_secret:
            new = secrets.token_bytes(32)
            try:
                self._shared_secret = await self._database.write(shared_secrets, (CSRF_KEY, new))
            except Unavailable:  # then no form can be sent, and pages that need no ledger are shown
                return self._process_secret
        return self._shared_secret


def session_cookie(request: web.Request) -> str:
    """Return the session's cookie; empty if there is none.

    `request.cookies` parses all cookies, which for hostile ones takes a second, and blocks the event loop.
    """
    found = _COOKIE.search(request.headers.get(hdrs.COOKIE, ""))
    return found[1] if found else ""


def _session_key(cookie: str) -> bytes:
    return hashlib.sha256(_octets(cookie)).digest()


def _token_proof(cookie: str, token: str) -> bytes:
    """Return what shows that a session began with this token, to those who have its cookie only."""
    return hmac.digest(_octets(cookie), token.encode(), "sha256")


def _keyed(key: bytes, text: str) -> str:
    return hmac.digest(key, _octets(text), "sha256").hex()


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a header may have bytes that are not UTF-8
