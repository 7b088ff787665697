"""The questions: a login at IAM, a list call at CodeArts, a finalize of a run that never exists, a probe in S3.

All are asked side by side, each for a limited time. They change nothing at an upstream, except that the probe is
written and deleted.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import field
from functools import partial
from hashlib import sha256
from typing import Final

from bridge.app.config_mapping import to_credentials, to_login, to_outbound_proxy
from bridge.app.resources import BackendContext, open_bucket
from bridge.client.codearts import CodeArts, CodeArtsCheck
from bridge.client.credentials import Credentials, StaticHeaders
from bridge.client.iam import IAM_HEADER_BYTES, Iam
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.session import GuardedSession
from bridge.client.testnod import TestNod
from bridge.clock import Clock
from bridge.commands.online import findings
from bridge.commands.online.findings import Asked, Finding
from bridge.domain.code_check.models import CodeCheckRules
from bridge.domain.instants import ZERO
from bridge.domain.outcomes import Stored, put_message
from bridge.errors import BridgeError
from bridge.protocols.iam import AUTH_HEADER, Token
from bridge.settings import Settings
from bridge.settings.rules import S3Location, s3_location
from bridge.store.blobs.s3 import ObjectStore
from bridge.store.engine.postgres import connect
from bridge.store.engine.postgres_url import is_postgres
from bridge.values import dataclass

QUESTION_SECONDS: Final = 25.0
"""Longer than the clients' own limits for an answer (20 seconds), which name the cause."""

MAX_QUESTIONS: Final = 8  # at once, so that an upstream does not throttle them
ABSENT_ID: Final = "0" * 32  # of a job, and of a record of Check
ABSENT_TOKEN: Final = "bridge-check-config"  # noqa: S105 -- valid nowhere
PROBE: Final = b"bridge check-config --online"

CODEARTS, CHECK, IAM = Asked(upstream="CodeArts Build"), Asked(upstream="CodeArts Check"), Asked(upstream="IAM")
TESTNOD, S3, POSTGRESQL = "TestNod", "S3", "PostgreSQL"
NAMES = {"testnod": TESTNOD, "codearts": CODEARTS.upstream, "check": CHECK.upstream, "iam": IAM.upstream, "s3": S3}
"""Upstreams by the names of their sessions."""


@dataclass(kw_only=True, slots=True)
class _Clocks:
    """By how many microseconds the clocks of upstreams are ahead of this machine's."""

    clock: Clock
    differences: list[tuple[str, int]] = field(default_factory=list)

    def note(self, upstream: str, at: int) -> None:
        self.differences.append((NAMES.get(upstream, upstream), at - self.clock.now()))


async def ask_upstreams(settings: Settings, clock: Clock) -> list[Finding]:
    """Ask each configured upstream one question, and return the findings in the order of the settings' tables.

    Raises SettingsError if outbound.ca_file cannot be used.
    """
    outbound = await asyncio.to_thread(to_outbound_proxy, settings)
    clocks = _Clocks(clock=clock)
    async with AsyncExitStack() as stack:
        asker = _Asker(settings, clocks, outbound, stack)
        asked = await asyncio.gather(*asker.testnod(), asker.codearts(), *asker.buckets(), *asker.postgres())
    return [*(finding for group in asked for finding in group), findings.of_clocks(clocks.differences)]


class _Asker:
    def __init__(self, settings: Settings, clocks: _Clocks, outbound: OutboundProxy, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._clocks = clocks
        self._outbound = outbound
        self._stack = stack
        self._slots = asyncio.Semaphore(MAX_QUESTIONS)
        self._new_session = partial(GuardedSession, outbound_proxy=outbound, dated=clocks.note)

    async def _ask(self, asked: Asked, question: Callable[[], Awaitable[Finding]]) -> Finding:
        async with self._slots:
            try:
                async with asyncio.timeout(QUESTION_SECONDS):
                    return await question()
            except TimeoutError:
                return asked.fails(f"No answer came within {QUESTION_SECONDS:g} seconds.", findings.NETWORK)
            except (BridgeError, OSError) as error:
                return asked.fails(str(error), "")

    def testnod(self) -> Iterator[Awaitable[list[Finding]]]:
        """Yield a question for each project token."""
        by_token: dict[str, list[str]] = {}
        for route in self._settings.routes:
            by_token.setdefault(route.project_token.get_secret_value(), []).append(route.name)
        for token, routes in by_token.items():
            yield self._testnod(token, Asked(upstream=TESTNOD, subject=f"route {', '.join(routes)}"))

    async def _testnod(self, token: str, asked: Asked) -> list[Finding]:
        session = await self._stack.enter_async_context(self._new_session("testnod"))
        testnod = TestNod(session, self._settings.testnod.base_url)

        async def question() -> Finding:
            return findings.of_testnod(asked, await testnod.probe(token))

        return [await self._ask(asked, question)]

    async def codearts(self) -> list[Finding]:
        """Log in at IAM if a password is used, then ask Build and Check, so that a wrong password is sent only once."""
        codearts = self._settings.codearts
        iam = None
        if codearts.iam_url:
            session = self._new_session("iam", header_bytes=IAM_HEADER_BYTES)
            iam = Iam(await self._stack.enter_async_context(session), codearts.iam_url)
        if codearts.auth == "password" and iam is not None:
            finding, token = await self._log_in(iam)
            if token is None:
                return [finding]
            return [finding, *await self._services(StaticHeaders(((AUTH_HEADER, token),)))]
        validates = iam is not None and "iam" in self._settings.callers.auth
        validation = [self._validate(iam)] if iam is not None and validates else []
        services = self._services(to_credentials(self._settings, iam, self._clocks.clock))
        groups = await asyncio.gather(*validation, services)
        return [finding for group in groups for finding in group]

    async def _log_in(self, iam: Iam) -> tuple[Finding, str | None]:
        token: str | None = None

        async def question() -> Finding:
            nonlocal token
            outcome = await iam.log_in(to_login(self._settings))
            token = outcome.token if isinstance(outcome, Token) else None
            return findings.of_login(IAM, outcome)

        finding = await self._ask(IAM, question)
        return finding, token

    async def _validate(self, iam: Iam) -> list[Finding]:
        async def question() -> Finding:
            return findings.of_validation(IAM, await iam.validate(ABSENT_TOKEN, requester=ABSENT_TOKEN))

        return [await self._ask(IAM, question)]

    async def _services(self, credentials: Credentials) -> list[Finding]:
        codearts = self._settings.codearts
        questions = []
        if codearts.endpoint:
            session = await self._stack.enter_async_context(self._new_session("codearts"))
            build = CodeArts(session, codearts.endpoint, credentials)
            questions.append(self._ask(CODEARTS, partial(self._list, build)))
        if codearts.check_endpoint:
            session = await self._stack.enter_async_context(self._new_session("check"))
            check = CodeArtsCheck(session, codearts.check_endpoint, credentials)
            questions.append(self._ask(CHECK, partial(_refresh, check)))
        return await asyncio.gather(*questions)

    async def _list(self, codearts: CodeArts) -> Finding:
        """List the jobs of a project that a route names, else the builds of a job."""
        projects = [glob for route in self._settings.routes for glob in route.project_id if _is_literal(glob)]
        if projects:
            return findings.of_codearts(CODEARTS, await codearts.job_list(projects[0]))
        jobs = [glob for route in self._settings.routes for glob in route.job_id if _is_literal(glob)]
        now = self._clocks.clock.now()
        return findings.of_codearts(CODEARTS, await codearts.record_list((jobs or [ABSENT_ID])[0], now, now))

    def buckets(self) -> Iterator[Awaitable[list[Finding]]]:
        """Yield a question for each bucket of spool and archive."""
        store = self._settings.store
        for name, text in (("store.spool", store.spool), ("store.archive", store.archive)):
            location = s3_location(text) if text else None
            if location is not None:
                yield self._bucket(Asked(upstream=S3, subject=name), location)

    async def _bucket(self, asked: Asked, location: S3Location) -> list[Finding]:
        async def question() -> Finding:
            async with AsyncExitStack() as ends:
                return await _probe(asked, await open_bucket(ends, self._settings, location, self._backend()))

        return [await self._ask(asked, question)]

    def _backend(self) -> BackendContext:
        clocks = self._clocks
        return BackendContext(
            clock=clocks.clock,
            outbound_proxy=self._outbound,
            observer=lambda *_: None,
            shared=True,
            now=clocks.clock.now,
            dated=clocks.note,
        )

    def postgres(self) -> Iterator[Awaitable[list[Finding]]]:
        """Yield a question for the ledger, if it is in PostgreSQL."""
        if is_postgres(self._settings.store.url):
            yield self._postgres(Asked(upstream=POSTGRESQL, subject="store.url"))

    async def _postgres(self, asked: Asked) -> list[Finding]:
        async def question() -> Finding:
            connection = await connect(self._settings.store.url)
            try:
                seconds = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())")
            finally:
                connection.terminate()
            self._clocks.note(POSTGRESQL, int(seconds * 1_000_000))
            return asked.works("A server that accepts writes answers.")

        return [await self._ask(asked, question)]


async def _refresh(check: CodeArtsCheck) -> Finding:
    rules = CodeCheckRules(task_id="", job_id=ABSENT_ID, limits=(), wait_us=ZERO, omit_missing=False)
    return findings.of_check(CHECK, await check.refresh(rules, in_background=True))


async def _probe(asked: Asked, bucket: ObjectStore) -> Finding:
    """Write an object, read it back and delete it: credentials may permit only one of these."""
    key = f"check-config/{uuid.uuid4().hex}"

    async def pieces() -> AsyncGenerator[bytes]:
        yield PROBE

    outcome = await bucket.put(key, pieces, size=len(PROBE), sha256=sha256(PROBE).hexdigest(), metadata={})
    if not isinstance(outcome, Stored):
        return asked.fails(f"It takes no object: {put_message(outcome)}", "Check [s3] and the rights of its key.")
    problem = ""
    try:
        async with aclosing(bucket.read(key)) as found:
            body = b"".join([piece async for piece in found])
        problem = "" if body == PROBE else "It returns other bytes than were written."
    except (BridgeError, OSError) as error:
        problem = f"It does not return an object: {error}"
    try:
        await bucket.delete(key)
    except BridgeError as error:
        problem = problem or f"It does not delete an object: {error}"
    if problem:
        return asked.fails(problem, "Let the key of [s3] get, put and delete objects below the prefix.")
    return asked.works("A probe was written, read and deleted.")


def _is_literal(glob: str) -> bool:
    return not any(character in glob for character in "*?[")
