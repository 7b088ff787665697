"""The console's pages: overview, builds, one build, one report, rejections; and who may see them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import structlog
from aiohttp import web
from lxml import etree
from multidict import MultiDict

from bridge.client.codearts import CodeArts
from bridge.domain.build import BuildState, DeliveryState
from bridge.domain.circuit_breaker import is_pause
from bridge.domain.clock_trust import Verdict
from bridge.domain.instants import HOUR, MINUTE, SECOND
from bridge.domain.junit.cases import CasePage, CaseReader
from bridge.domain.routing import Route
from bridge.domain.text_format import span
from bridge.domain.why import why
from bridge.errors import BadParameter, BridgeError, NotFound, Unavailable
from bridge.server.admin.access import CSRF_FIELD, PERSON, AdminAccess, require_csrf, require_same_site
from bridge.server.admin.actions import OperatorActions
from bridge.server.admin.builds import poll_codearts
from bridge.server.admin.console.build_page import events_of, hidden_spans, spans_of
from bridge.server.admin.console.charts import bars, timeline
from bridge.server.admin.console.rejected_file import MAX_SHOWN_BYTES, excerpt, preview_repair
from bridge.server.admin.console.templates import (
    STATIC_TYPES,
    ReportPage,
    clock_time,
    new_environment,
    reports_as_file,
    static_file,
)
from bridge.server.admin.identification import COOKIE, Identification
from bridge.server.admin.job_tests import TestHistory
from bridge.server.admin.params import (
    read_builds_query,
    read_id,
    read_page,
    read_rejections_query,
    read_tests_query,
    require_id,
)
from bridge.server.http.requests import read_build_name, read_small_body
from bridge.server.http.responses import disposition, file_name
from bridge.server.upload.resender import QuarantineResender
from bridge.store.archive.base import Archive, copy_of
from bridge.store.blobs.base import Spool
from bridge.store.circuit_breakers import all_breakers
from bridge.store.console import (
    BUCKETS_OF_DAY,
    BUCKETS_OF_HOUR,
    Activity,
    ReportSource,
    build_details,
    list_summaries,
    neighbors,
    overview,
    report_source,
)
from bridge.store.engine.base import Database
from bridge.store.notices import failing_targets
from bridge.store.queries import find_why
from bridge.store.rejections import list_rejections
from bridge.store.row_mapping import ReportRow
from bridge.telemetry.repeated_lines import log_refusal

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
PAGE_BUILDS: Final = 50
REPORTS_SHOWN: Final = 200
MAX_SIGN_IN_BYTES: Final = 4096
MAX_COSTLY_PAGES: Final = 4
PIECE_SECONDS: Final = 10.0  # for one piece of a file: a disk or bucket that takes longer is away

ACTIONS: Final = {
    "retry-delivery": "Send this report to TestNod again?",
    "retry-build": "Send all dead reports of this build again?",
    "retry-route": "Send all dead reports of this route again?",
    "finalize-build": "End this build now? Its run is finalized once its reports are delivered.",
    "forget-build": "Forget this build? Its reports, their bytes and its rejections are deleted here for good.",
    "pause-route": "Pause this route? Reports are accepted, and nothing is sent until it is resumed.",
    "resume-route": "Resume this route?",
    "send-as-is": "Send this file as it is, with the settings of today?",
    "send-repaired": "Send this file repaired?",
}
"""What people can do on the pages, each with the question that is asked first."""


Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


class ConsolePages:
    """Handlers of the console. `routes`, `access` and `clock_verdict` return what counts for a new request."""

    def __init__(  # noqa: PLR0913 -- everything that it shows
        self,
        *,
        database: Database,
        actions: OperatorActions,
        identification: Identification,
        tests: TestHistory,
        resender: Callable[[], QuarantineResender],
        codearts: Callable[[], CodeArts | None],
        spool: Spool,
        archive: Archive | None,
        access: Callable[[], AdminAccess],
        routes: Callable[[], Sequence[Route]],
        reasons: Callable[[], Any],
        free_bytes: Callable[[], int | None],
        clock_verdict: Callable[[], Verdict],
    ) -> None:
        self._database = database
        self._actions = actions
        self._identification = identification
        self._tests = tests
        self._resender = resender
        self._codearts = codearts
        self._spool = spool
        self._archive = archive
        self._access = access
        self._routes = routes
        self._reasons = reasons
        self._free_bytes = free_bytes
        self._clock_verdict = clock_verdict
        self._thread = ThreadPoolExecutor(1, "console")
        self._costly_pages = 0
        self._environment = new_environment()
        self._environment.filters["ago"] = self._ago

    def close(self) -> None:
        """End the thread of costly pages."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    # -- pages ---------------------------------------------------------------------------------------------------

    async def overview(self, request: web.Request) -> web.StreamResponse:
        """Show what arrived, what did not, and the state of everything that the gateway needs."""
        now = self._database.now()
        found = await self._database.read(overview, now)
        breakers = await self._database.read(all_breakers)
        return self._page(
            request,
            "overview.html",
            found=found,
            now=now,
            hour=_charts(found.hour, now, MINUTE, BUCKETS_OF_HOUR),
            day=_charts(found.day, now, HOUR, BUCKETS_OF_DAY),
            upstreams=[breaker for name, breaker in sorted(breakers.known.items()) if not is_pause(name)],
            failing_notices=await self._database.read(failing_targets),
            paused=breakers.paused_reason,
            reasons=await self._reasons(),
            free_bytes=self._free_bytes(),
            routes=await self._actions.routes(),
            ledger="PostgreSQL" if self._database.shared else "SQLite",
        )

    async def builds(self, request: web.Request) -> web.StreamResponse:
        """Show a page of builds that match the filters, newest first."""
        given = _given(request)
        query = replace(read_builds_query(_multi(given)), limit=PAGE_BUILDS)
        page = await self._database.read(list_summaries, query)
        return self._page(
            request,
            "builds.html",
            page=page,
            states=list(BuildState),
            routes=self._routes(),
            **_filters(given, page.next_before_id),
        )

    async def build(self, request: web.Request) -> web.StreamResponse:
        """Show one build: why it is where it is, its timeline, reports and rejections."""
        job_id, number = request.match_info["job_id"], request.match_info["build_no"]
        wanted = read_build_name({"job_id": job_id, "build_no": number})
        job_id, build_no = wanted.job_id, wanted.build_no
        details = await self._database.read(build_details, job_id, build_no)
        found = await self._database.read(find_why, job_id, build_no)
        wanted.require(found=details is not None or bool(found.rejections))
        now, codearts = self._database.now(), self._codearts()
        asks = request.query.get("codearts") == "true"
        polled = await poll_codearts(codearts, wanted, found) if asks else None
        answer = why(
            job_id=job_id,
            build_no=build_no,
            build=found.build,
            rejections=found.rejections,
            breakers=replace(found.breakers, clock=self._clock_verdict()),
            now=now,
            polled=polled,
            leased=found.lease_until > now,
        )
        before, after = await self._database.read(neighbors, job_id, build_no)
        shown = details.view["reports"] if details else []
        order = sorted(shown, key=lambda report: (-(report["failures"] + report["errors"]), report["name"]))
        return self._page(
            request,
            "build.html",
            status=200 if details or found.rejections else 404,
            job_id=job_id,
            build_no=build_no,
            answer=answer,
            details=details,
            rejections=found.rejections,
            asked=asks,
            may_ask=codearts is not None and details is None and polled is None,
            reports=order[:REPORTS_SHOWN],
            hidden_reports=max(0, len(order) - REPORTS_SHOWN),
            events=events_of(details) if details else [],
            chart=timeline(spans_of(details), now=now, label="Timeline of the build") if details else "",
            hidden_spans=hidden_spans(details) if details else 0,
            before=before,
            after=after,
        )

    async def report(self, request: web.Request) -> web.StreamResponse:
        """Show the cases of one report, failing ones first."""
        report_id = read_id(request.match_info["id"])
        source = None if report_id is None else await self._database.read(report_source, report_id)
        if source is None:
            raise NotFound("The ledger has no report with this id. Open its build, and choose the report there.")
        with self._costly_page():
            return await self._report_page(request, source)

    async def _report_page(self, request: web.Request, source: ReportSource) -> web.StreamResponse:
        query, part = request.query.get("q", "")[:200], _part(request.query.get("part", "1"))
        found, fault = None, None
        try:
            found = await self._read_cases(source, query=query, part=part)
        except BridgeError as error:
            fault = str(error)
        except etree.XMLSyntaxError as error:
            fault = f"The file cannot be read as XML: {error.msg}."
        if request.query.get("save") == "true" and found is not None:
            await self._actions.record(request, "download", f"report {source.row.id}")
            return await self._in_thread(partial(_saved, source.row, found))
        values: dict[str, Any] = {
            "source": source,
            "report": source.row,
            "found": found,
            "fault": fault,
            "query": query,
            "part": part,
        }
        render = partial(self._page, request, "report.html", **values)
        return await self._in_thread(render)  # it may be some MB of text

    async def _read_cases(self, source: ReportSource, *, query: str, part: int) -> CasePage:
        reader = CaseReader(query=query, part=part)
        async with aclosing(self._bytes_of(source)) as pieces:
            async for piece in pieces:
                await self._in_thread(reader.feed, piece)
        return await self._in_thread(reader.finish)

    async def _bytes_of(self, source: ReportSource) -> AsyncGenerator[bytes]:
        """Yield the bytes of a report: from its row, the spool, or the archive."""
        if source.body is not None:
            yield source.body
            return
        pieces = self._spool.read(source.blob) if source.blob is not None else await self._archived(source)
        async with aclosing(pieces):
            while piece := await _next_piece(pieces):
                yield piece

    async def _archived(self, source: ReportSource) -> AsyncGenerator[bytes]:
        """Return the bytes of the copy in the archive; raise NotFound if there is none."""
        copy = None if self._archive is None else await self._database.read(copy_of, source.row.id)
        if self._archive is None or copy is None or copy.entry is None or copy.state is not DeliveryState.DELIVERED:
            raise NotFound(
                "The file is no longer kept here: TestNod has it, and store.archive is empty. "
                "Set store.archive to keep copies of later reports."
            )
        return self._archive.read(copy.entry.key)

    async def tests(self, request: web.Request) -> web.StreamResponse:
        """Show which tests of a job are flaky, slow, or new in every build; without a job, which jobs there are."""
        given = _given(request)
        jobs = await self._tests.jobs()
        if len(jobs) == 1:
            given.setdefault("job_id", jobs[0].job_id)
        if "job_id" not in given:
            return self._page(request, "tests.html", jobs=jobs, job_id="", found=None)
        job_id, builds = read_tests_query(_multi(given))
        found = await self._tests.of_job(job_id, builds)
        return self._page(request, "tests.html", jobs=jobs, job_id=job_id, found=found, builds=builds)

    async def rejections(self, request: web.Request) -> web.StreamResponse:
        """Show a page of rejections, newest first."""
        given = _given(request)
        page = await self._database.read(
            list_rejections, replace(read_rejections_query(_multi(given)), limit=PAGE_BUILDS)
        )
        return self._page(request, "rejections.html", page=page, **_filters(given, page.next_before_id))

    async def static(self, request: web.Request) -> web.StreamResponse:
        """Return a file of the pages; its URL changes with its content, so browsers keep it."""
        name = request.match_info["name"]
        if name not in STATIC_TYPES:
            raise web.HTTPNotFound
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=static_file(name), content_type=STATIC_TYPES[name], charset="utf-8", headers=headers)

    async def rejection(self, request: web.Request) -> web.StreamResponse:
        """Show a rejected file with its faulty place marked, and what a repair would change."""
        rejection_id = require_id(request, "rejection", "/rejections")
        found = await self._resender().find(rejection_id)
        shown, preview, fault = None, None, None
        size = found.file.rejection.size or 0
        if size > MAX_SHOWN_BYTES:
            fault = f"The file has {size} bytes. Download it to look at it."
        else:
            try:
                with self._costly_page():
                    data = b"".join([piece async for piece in self._resender().read(found)])
                    shown = excerpt(data, found.file.rejection.reason)
                    preview = await self._in_thread(preview_repair, data)
            except NotFound as error:
                fault = str(error)
        return self._page(
            request,
            "rejection.html",
            file=found.file,
            rejection=found.file.rejection,
            shown=shown,
            preview=preview,
            fault=fault,
        )

    async def audit(self, request: web.Request) -> web.StreamResponse:
        """Show what operators did, newest first."""
        given = _given(request)
        query = replace(read_page(_multi(given)), limit=PAGE_BUILDS + 1)
        found = await self._actions.audit(query)
        page = found[:PAGE_BUILDS]
        following = page[-1].id if len(found) > PAGE_BUILDS else None
        return self._page(request, "audit.html", entries=page, **_filters(given, following))

    # -- actions -------------------------------------------------------------------------------------------------

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """Ask whether to do an action."""
        action, target = _action(request.query)
        back = _local_path(request.query.get("back", "/"))
        loss = await self._actions.loss(read_id(target)) if action == "forget-build" else ""
        question = ACTIONS[action]
        return self._page(request, "ask.html", action=action, target=target, question=question, loss=loss, back=back)

    async def act(self, request: web.Request) -> web.StreamResponse:
        """Do an action, and show what happened."""
        form = await _read_form(request)
        person = request[PERSON]
        require_csrf(person, form.get(CSRF_FIELD))
        action, target = _action(form)
        result = await self._do(request, action, target)
        back = "/builds" if action == "forget-build" else _local_path(form.get("back", "/"))
        return self._page(request, "done.html", action=action, result=result, back=back)

    async def _do(self, request: web.Request, action: str, target: str) -> str:
        if action in ("pause-route", "resume-route"):
            return await self._actions.pause(request, target, pause=action == "pause-route")
        if action == "retry-route":
            return await self._actions.retry(request, route=target)
        row_id = read_id(target)
        if row_id is None:
            raise NotFound(f"{target!r} is not an id. Go back, and use the buttons of the page.")
        match action:
            case "retry-delivery":
                return await self._actions.retry(request, delivery_id=row_id)
            case "retry-build":
                return await self._actions.retry(request, build_id=row_id)
            case "finalize-build":
                return await self._actions.finalize(request, row_id)
            case "forget-build":
                return await self._actions.forget(request, row_id)
            case _:
                sent = await self._resender().send(row_id, repair=action == "send-repaired")
                await self._actions.record(request, action, f"rejection {row_id}")
                return f"{sent}."

    # -- sign-in -------------------------------------------------------------------------------------------------

    async def sign_in_form(self, request: web.Request) -> web.StreamResponse:
        """Show the form that asks for the token."""
        return self._page(request, "sign_in.html", next=_local_path(request.query.get("next", "/")), fault="")

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """Begin a session with a token of the admin listener."""
        require_same_site(request)
        form = await _read_form(request)
        going_to = _local_path(form.get("next", "/"))
        cookie = await self._identification.begin_session(form.get("name", "").strip(), form.get("token", ""))
        if cookie is None:
            log_refusal(_log.warning, "sign_in_refused", address=request.remote)
            fault = (
                "This is not a token of the admin listener. It is admin.token, or admin.viewer_token, of the settings."
            )
            return self._page(request, "sign_in.html", status=403, next=going_to, fault=fault)
        await self._identification.end_session(request)  # the one that the cookie replaces
        response = web.Response(status=303, headers={"Location": going_to, **PAGE_HEADERS})
        is_encrypted = self._access().is_encrypted(request)
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="Strict", secure=is_encrypted, path="/")
        return response

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """End the session of this browser, at every replica."""
        require_same_site(request)
        await self._identification.end_session(request)
        response = web.Response(status=303, headers={"Location": "/sign-in", **PAGE_HEADERS})
        response.del_cookie(COOKIE, path="/")
        return response

    def error(self, request: web.Request, status: int, message: str) -> web.Response:
        """Return the page of an error, for browsers."""
        return self._page(request, "error.html", status=status, code=status, message=message)

    # -- costly pages --------------------------------------------------------------------------------------------

    @contextmanager
    def _costly_page(self) -> Iterator[None]:
        """Hold a place of a page that reads a whole file; raise Unavailable if too many are being made."""
        if self._costly_pages >= MAX_COSTLY_PAGES:
            raise Unavailable("Other pages that read whole files are being made. Reload this one in a moment.")
        self._costly_pages += 1
        try:
            yield
        finally:
            self._costly_pages -= 1

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function in the one thread of costly pages, apart from the threads that uploads need."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _page(self, request: web.Request, template: str, *, status: int = 200, **values: object) -> web.Response:
        person = request.get(PERSON)
        context = {**values, "person": person, "path": request.path, "signs_in": self._access().has_tokens}
        text = self._environment.get_template(template).render(context)
        return web.Response(text=text, content_type="text/html", status=status, headers=PAGE_HEADERS)

    def _ago(self, at: int | None) -> str:
        return "–" if at is None else f"{span(max(0, self._database.now() - at))} ago"


def _saved(report: ReportRow, cases: CasePage) -> web.Response:
    """Return the page of a report as one file, as a download."""
    page = ReportPage(
        name=report.name,
        tests=report.tests,
        failed=report.failures + report.errors,
        skipped=report.skipped,
        seconds=report.time_us / SECOND,
        notes=report.notes,
        cases=cases,
    )
    text = reports_as_file(report.name, [page])
    name = file_name(f"report-{report.id}", f"{report.name}.html")
    headers = {**PAGE_HEADERS, "Content-Disposition": disposition(name)}
    return web.Response(text=text, content_type="text/html", headers=headers)


async def _next_piece(pieces: AsyncGenerator[bytes]) -> bytes:
    """Return the next piece of a report, empty at its end; raise NotFound or Unavailable if it cannot be read."""
    try:
        async with asyncio.timeout(PIECE_SECONDS):
            return await anext(pieces, b"")
    except FileNotFoundError as error:
        raise NotFound("The file is no longer in the archive. It was kept for store.retention.") from error
    except TimeoutError as error:
        raise Unavailable("The spool or the archive did not return the file in time. Reload the page.") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Unavailable(f"The file cannot be read: {reason}. Check its disk.") from error


async def _read_form(request: web.Request) -> Mapping[str, str]:
    body = await read_small_body(request.content, max_bytes=MAX_SIGN_IN_BYTES, remedy="Send the form of the console.")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _action(values: Mapping[str, str]) -> tuple[str, str]:
    """Return the action and its target; raise BadParameter if there is no such action."""
    action = values.get("action", "")
    if action not in ACTIONS:
        raise BadParameter(f"{action!r} is not an action. Go back, and use the buttons of the page.")
    return action, values.get("target", "")


def _local_path(text: str) -> str:
    """Return the path to go to after sign-in: one of this listener, never another site."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_local else "/"


def _given(request: web.Request) -> dict[str, str]:
    """Return the parameters of a page; what a form left empty is not given."""
    return {name: value.strip() for name, value in request.query.items() if value.strip()}


def _filters(given: Mapping[str, str], next_before_id: int | None) -> dict[str, Any]:
    """Return what a list shows of its parameters: these, and those of the page after it, None if it is the last."""
    following = None if next_before_id is None else {**given, "after": str(next_before_id)}
    return {"given": given, "following": following}


def _multi(values: Mapping[str, str]) -> MultiDict[str]:
    return MultiDict(values)


def _part(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise BadParameter(f"part is {text!r}, not a number from 1. Follow the links of the page.")
    return int(text)


def _charts(activity: Activity, now: int, bucket_us: int, buckets: int) -> list[dict[str, object]]:
    first = now - now % bucket_us - (buckets - 1) * bucket_us
    starts = [clock_time(first + index * bucket_us) for index in range(buckets)]
    named = {
        "reports accepted": activity.reports,
        "reports delivered": activity.delivered,
        "builds begun": activity.builds,
        "runs finalized": activity.finalized,
    }
    return [
        {
            "label": label,
            "total": series.total,
            "cut": series.cut,
            "svg": bars(series.counts, label=label, starts=starts),
        }
        for label, series in named.items()
    ]
