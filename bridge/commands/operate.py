"""`bridge builds`, `rejections`, `retry`, `finalize`, `routes`: tables on a terminal, JSON in a pipe."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.commands.admin_client import AdminAddress, GatewayNotRunning, request_admin_api
from bridge.commands.console import print_note, print_result
from bridge.domain.text_format import counted, printable
from bridge.errors import BridgeError

FOLLOW_SECONDS: Final = 2.0
FINAL_STATES: Final = ("finalized", "no_run")
MIRROR_AGREES: Final = "agrees"
STATE_COLORS: Final = {"open": "cyan", "ended": "yellow", "finalized": "green", "no_run": "dim"}

Object = Mapping[str, Any]


class AdminCommands:
    """The commands; `json_wanted` prints JSON on a terminal, too."""

    def __init__(self, config: Path, *, json_wanted: bool = False) -> None:
        self._config = config
        self._json = json_wanted or not sys.stdout.isatty()
        self._seen: dict[object, object] = {}  # of builds that are followed

    def builds(self, which: Sequence[str], filters: Mapping[str, str | int], *, follow: bool) -> None:
        """Print a page of builds, or the one that `which` names by job and number, or by its id."""
        one = len(which) == 2 or (len(which) == 1 and which[0].isdecimal() and len(which[0]) < 20)
        if follow:
            asyncio.run(self._follow_one(which) if one else self._follow(which, filters))
        elif one:
            build = asyncio.run(self._find(which))
            self._print(build, lambda: self._show_build(build))
        else:
            page = asyncio.run(self._ask("/api/v1/builds", {**filters, **({"job_id": which[0]} if which else {})}))
            self._print(page, lambda: self._show_page(page, "builds", _builds_table))

    def rejections(self, filters: Mapping[str, str | int]) -> None:
        """Print a page of rejections."""
        page = asyncio.run(self._ask("/api/v1/rejections", filters))
        self._print(page, lambda: self._show_page(page, "rejections", _rejections_table))

    def routes(self) -> None:
        """Print all routes with their state."""
        found = asyncio.run(self._ask("/api/v1/routes"))
        self._print(found, lambda: self._show_page(found, "routes", _routes_table))

    def act(self, path: str, body: dict[str, Any] | None = None) -> None:
        """Make a call that changes something, and print what happened."""
        self._print_result(asyncio.run(self._ask(path, body=body or {})))

    def act_on_build(self, which: Sequence[str], action: str) -> None:
        """Do `action`, retry or finalize, for the build that `which` names."""

        async def run() -> dict[str, Any]:
            build = await self._find(which)
            if build["id"] is None:
                raise BridgeError("Every upload of this build was rejected. `bridge rejections` lists the files.")
            return await self._ask(f"/api/v1/builds/{build['id']}/{action}", body={})

        self._print_result(asyncio.run(run()))

    def forget(self, which: Sequence[str], *, sure: Callable[[str], bool]) -> None:
        """Delete a build, or all builds of the job that `which` names alone, if `sure` returns true for a question."""
        is_job = len(which) == 1 and not (which[0].isdecimal() and len(which[0]) < 20)
        answer = asyncio.run(self._forget_job(which[0], sure) if is_job else self._forget_build(which, sure))
        if answer is not None:
            self._print_result(answer)

    async def _forget_job(self, job_id: str, sure: Callable[[str], bool]) -> Object | None:
        if not sure(f"Forget all builds of job {job_id}, with their reports and rejections"):
            return None
        count = 0
        while page := (await self._ask("/api/v1/builds", {"job_id": job_id, "limit": 100}))["builds"]:
            for build in page:
                await self._ask(f"/api/v1/builds/{build['id']}/forget", body={})
            count += len(page)
        rejections = (await self._forget_rejections({"job_id": job_id}))["rejections"]
        rejected = f", and {counted(rejections, 'rejection')} of builds without reports" if rejections else ""
        return {"result": f"Forgotten: {counted(count, 'build')} of job {job_id}{rejected}."}

    async def _forget_build(self, which: Sequence[str], sure: Callable[[str], bool]) -> Object | None:
        """Delete a build, or its rejections if nothing of it was accepted; None if `sure` returns false."""
        params = dict(zip(("job_id", "build_no"), which, strict=False))
        if len(which) == 2 and not (await self._ask("/api/v1/builds", params))["builds"]:
            if not (await self._ask("/api/v1/rejections", params))["rejections"]:
                raise BridgeError(f"The gateway has nothing of build {which[1]} of job {which[0]}.")
            question = f"Forget the rejections of build {' '.join(which)}, of which nothing was accepted"
            return await self._forget_rejections(params) if sure(question) else None
        build = await self._find(which)
        name = f"{build['job_id']} {build['build_no']}"
        if not sure(f"Forget build {name} with {counted(len(build['reports']), 'report')}"):
            return None
        return await self._ask(f"/api/v1/builds/{build['id']}/forget", body={})

    async def _forget_rejections(self, params: Mapping[str, str]) -> dict[str, Any]:
        return await self._ask("/api/v1/rejections/forget", params, body={})

    # -- calls ---------------------------------------------------------------------------------------------------

    async def _ask(
        self, path: str, params: Mapping[str, str | int] | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        admin = AdminAddress.find(self._config)
        try:
            return await request_admin_api(admin, path, params=params, body=body)
        except GatewayNotRunning:
            raise BridgeError(f"No gateway answers at {admin.url}. Start it, or set BRIDGE_ADMIN_URL.") from None

    async def _find(self, which: Sequence[str]) -> dict[str, Any]:
        if len(which) == 1:
            return await self._ask(f"/api/v1/builds/{which[0]}")
        job_id, build_no = which
        found = (await self._ask("/api/v1/builds", {"job_id": job_id, "build_no": build_no}))["builds"]
        if not found:
            raise BridgeError(
                f"The gateway has no build {build_no} of job {job_id}. `bridge why` explains what is known."
            )
        return dict(found[0])

    async def _follow(self, which: Sequence[str], filters: Mapping[str, str | int]) -> None:
        """Print builds whenever they change, until the command is interrupted."""
        params = {**filters, **({"job_id": which[0]} if which else {})}
        async for page in self._again_and_again(lambda: self._ask("/api/v1/builds", params)):
            for build in reversed(page["builds"]):
                self._print_change(build)

    async def _follow_one(self, which: Sequence[str]) -> None:
        """Print a build whenever it changes, until it is finalized."""
        async for build in self._again_and_again(lambda: self._find(which)):
            self._print_change(build)
            if build["state"] in FINAL_STATES:
                return

    async def _again_and_again(self, ask: Callable[[], Awaitable[dict[str, Any]]]) -> AsyncIterator[dict[str, Any]]:
        """Yield what `ask` returns; once it has succeeded, a gateway that is away is waited for."""
        yield await ask()
        away = False
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                yield await ask()
                away = False
            except BridgeError as error:
                if not away:
                    print_note(str(error))
                away = True

    # -- printing ------------------------------------------------------------------------------------------------

    def _print_change(self, build: Object) -> None:
        key, now = (build["job_id"], build["build_no"]), _progress(build)
        if self._seen.get(key) == now:
            return
        self._seen[key] = now
        if self._json:
            typer.echo(json.dumps(build, ensure_ascii=False))
        else:
            print_result(f"{build['job_id']} {build['build_no']}: {build['state']}, {', '.join(_summary(build))}")
        sys.stdout.flush()

    def _print(self, content: Object, show: Callable[[], None]) -> None:
        if self._json:
            typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        else:
            show()

    def _print_result(self, answer: Object) -> None:
        self._print(answer, lambda: print_result(str(answer["result"])))

    def _show_page(self, page: Object, name: str, table: Callable[[Sequence[Object]], Table]) -> None:
        rows = page[name]
        Console(highlight=False).print(table(rows))
        if page.get("next"):
            print_note(f"There are more than {counted(len(rows), 'row')}. Continue with --after {page['next']}.")

    def _show_build(self, build: Object) -> None:
        for name in ("job_id", "build_no", "id", "state", "route", "branch", "commit", "build_result"):
            if build[name] is not None:
                print_result(f"{name}: {printable(str(build[name]))}")
        for line in _summary(build):
            print_result(line)
        for run in build["testnod"]["runs"]:
            print_result(f"TestNod: {printable(str(run['test_run_url']))} ({run['status']})")
        console = Console(highlight=False)
        if build["reports"]:
            console.print(_reports_table(build["reports"]))
        if build["rejections"]:
            console.print(_rejections_table(build["rejections"]))


def _grid(*names: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    for name in names:
        grid.add_column(name, overflow="fold")
    return grid


def _cell(value: object) -> Text:
    return Text("" if value is None else printable(str(value)))


def _builds_table(builds: Sequence[Object]) -> Table:
    grid = _grid("Id", "Job", "No", "State", "Route", "Branch", "Accepted", "Reports")
    for build in builds:
        state = Text(str(build["state"]), STATE_COLORS.get(build["state"], ""))
        values = (build[name] for name in ("route", "branch"))
        cells = [_cell(build["id"]), _cell(build["job_id"]), _cell(build["build_no"]), state, *map(_cell, values)]
        grid.add_row(*cells, _cell(_time(build["accepted_at"])), _cell("; ".join(_summary(build))))
    return grid


def _reports_table(reports: Sequence[Object]) -> Table:
    grid = _grid("Tests", "Fail", "Err", "Skip", "Delivery", "Report")
    for report in reports:
        deliveries = ", ".join(f"{each['target']} {each['state']}" for each in report["deliveries"])
        counts = (report[name] for name in ("tests", "failures", "errors", "skipped"))
        grid.add_row(*map(_cell, counts), _cell(deliveries), _cell(report["name"]))
    return grid


def _rejections_table(rejections: Sequence[Object]) -> Table:
    grid = _grid("Id", "At", "Build", "Name", "Reason", "Kept until")
    for each in rejections:
        build = f"{each['job_id']} {each['build_no']}" if "job_id" in each else ""
        cells = (each["id"], _time(each["at"]), build, each["name"] or "(upload)", each["reason"])
        kept = f"sent {_time(each['sent_at'])}" if each["sent_at"] else _time(each["kept_until"])
        grid.add_row(*map(_cell, cells), _cell(kept))
    return grid


def _routes_table(routes: Sequence[Object]) -> Table:
    grid = _grid("Route", "State", "Reason", "Jobs", "Tags")
    for route in routes:
        state = "paused" if route["paused"] else "blocked" if route["blocked_reason"] else "open"
        reason = route["paused_reason"] or route["blocked_reason"]
        cells = (route["name"], state, reason, ", ".join(route["job_id"]), ", ".join(route["tags"]))
        grid.add_row(*map(_cell, cells))
    return grid


def _time(text: str | None) -> str | None:
    """Return a time of the API without fractions of a second."""
    return None if text is None else text.partition(".")[0].replace("T", " ") + "Z" if "." in text else text


def _summary(build: Object) -> Iterator[str]:
    """Yield what an operator looks for first."""
    reports = build["reports"]
    states = [each["state"] for report in reports for each in report["deliveries"]]
    failed = sum(report["failures"] + report["errors"] for report in reports)
    tests = sum(report["tests"] for report in reports)
    yield f"{counted(len(reports), 'report')}, {counted(tests, 'test')}, {failed} failed"
    for state in ("pending", "dead"):
        if state in states:
            yield f"{states.count(state)} {state}"
    if build["rejections"]:
        yield counted(len(build["rejections"]), "rejection")
    if build["mirror"] not in (None, MIRROR_AGREES):
        yield f"mirror {printable(build['mirror'])}"
    yield from (printable(build[name]) for name in ("blocked_reason", "stuck_reason", "last_error") if build[name])


def _progress(build: Object) -> object:
    return build["state"], tuple(_summary(build)), tuple(run["status"] for run in build["testnod"]["runs"])
