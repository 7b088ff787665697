"""Send one past build, and wait until its run is finalized: then the next build of its job may follow."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from hashlib import sha256
from itertools import chain
from threading import Lock
from typing import Any, Final

from bridge.commands.backfill.state import BackfillState, BuildEnd, BuildProgress, StoredBuild, StoredFile
from bridge.commands.check.results import NOT_JUNIT, validate
from bridge.commands.upload.batches import Batch, Part, batches_of
from bridge.commands.upload.gateway_client import GatewayAway, GatewayClient
from bridge.commands.upload.report import TAKEN
from bridge.commands.upload.run import FINAL_STATES, is_plain
from bridge.commands.upload.sender import FINAL_CODES, RequestOutcome, Result, Sender
from bridge.domain.junit.result import Invalid
from bridge.domain.text_format import counted
from bridge.errors import Forbidden, NoRoute
from bridge.values import dataclass

FIRST_POLL_SECONDS: Final = 0.1
MAX_POLL_SECONDS: Final = 2.0

_JOB_CODES: Final = frozenset({NoRoute.code, Forbidden.code})
"""Of rejections that all builds of a job would get."""


class SetbackKind(StrEnum):
    """How much a setback stops."""

    AWAY = "away"  # everything: the gateway does not answer
    REFUSED = "refused"  # everything: the token is wrong, or the server is not a gateway
    JOB = "job"  # the other builds of the job


@dataclass(frozen=True, kw_only=True, slots=True)
class Setback:
    """Why a build is not finished; a later run goes on with it. `patience` is whether time alone may cure it."""

    kind: SetbackKind
    message: str
    patience: bool = True


class _Stopped(Exception):
    def __init__(self, setback: Setback) -> None:
        super().__init__(setback.message)
        self.setback = setback


@dataclass(kw_only=True)
class BuildSender:
    """Sends builds, each in the thread of its caller; waits for at most `budget` seconds while nothing moves."""

    client: GatewayClient
    state: BackfillState
    note: Callable[[str], None]
    budget: float
    project_id: str = ""  # stated of all builds, unless it is empty
    _noted: dict[str, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def run(self, build: StoredBuild, files: Sequence[StoredFile]) -> BuildEnd | Setback:
        """Send a build, and return its end once its run is finalized; without `files` it is only declared complete."""
        try:
            return self._run(build, files)
        except _Stopped as stopped:
            return stopped.setback

    def _run(self, build: StoredBuild, files: Sequence[StoredFile]) -> BuildEnd:
        if not build.begun:
            known = self._ask(build)
            if known is not None and known.get("id") is not None and (known["reports"] or not files):
                return _known_end(known, files)
        examined = examine(files)
        problems = examined.unreadable
        if files and not examined.reports:
            progress = BuildProgress.REJECTED if problems else BuildProgress.EMPTY
            return BuildEnd(
                progress=progress, skipped=examined.skipped, rejected=len(problems), problems=tuple(problems)
            )
        self.state.begin(build)
        sender = Sender(client=self.client, deadline=time.monotonic() + self.budget, note=self.note)
        rows = self._judge(sender.send(_batches(build, examined.reports, self._stated(build))), problems)
        view = self._wait(build)
        taken = [row for row in rows if row.get("status") in TAKEN]
        runs = view["testnod"]["runs"] if view else []
        return BuildEnd(
            progress=BuildProgress.SENT if taken or not files else BuildProgress.REJECTED,
            sent=len(taken),
            rejected=len(problems),
            skipped=examined.skipped + sum(row.get("status") == "skipped" for row in rows),
            tests=sum(row.get("tests") or 0 for row in taken),
            failures=sum((row.get("failures") or 0) + (row.get("errors") or 0) for row in taken),
            test_run_url=str(runs[-1].get("test_run_url") or "") if runs else "",
            problems=tuple(problems),
        )

    def _stated(self, build: StoredBuild) -> dict[str, str]:
        """Return what uploads state of a build: CodeArts, which knows it too, may have deleted its record."""
        job_name = self.state.job_name(self.project_id, build.job_id)
        stated = {"branch": build.branch, "commit": build.commit, "project_id": self.project_id, "job_name": job_name}
        return {name: value for name, value in stated.items() if value}

    def _judge(self, results: Sequence[Result], problems: list[tuple[str, str]]) -> list[Mapping[str, Any]]:
        """Return the gateway's rows of files, and add rejected ones to `problems`; raise _Stopped if it stops."""
        rows: list[Mapping[str, Any]] = []
        for result in results:
            if result.outcome is RequestOutcome.AWAY:
                raise _Stopped(Setback(kind=SetbackKind.AWAY, message=result.message))
            if result.outcome is RequestOutcome.ANSWERED:
                rows += result.files
            elif result.code in _JOB_CODES:
                raise _Stopped(Setback(kind=SetbackKind.JOB, message=result.message, patience=False))
            elif result.code in FINAL_CODES:
                problems += [(part.name, result.message) for part in result.batch.parts]
            else:
                raise _Stopped(Setback(kind=SetbackKind.REFUSED, message=result.message, patience=False))
        for row in rows:
            if row.get("status") == "rejected":
                problems.append((str(row.get("name")), str(row.get("message") or row.get("reason") or "")))
        return rows

    # -- the state of the build at the gateway ---------------------------------------------------------------------

    def _wait(self, build: StoredBuild) -> Mapping[str, Any] | None:
        """Return the build object once its run is finalized, None if the gateway has no such build."""
        seen: object = None
        until, pause = 0.0, FIRST_POLL_SECONDS
        while True:
            view = self._ask(build)
            if view is None or _is_finished(view):
                return view
            reason = view.get("blocked_reason") or view.get("last_error") or ""
            if (progress := _progress_of(view)) != seen:
                seen, until, pause = progress, time.monotonic() + self.budget, FIRST_POLL_SECONDS
            if time.monotonic() + pause > until:
                message = f"Build {build.build_no} is not finalized. {reason or 'Ask `bridge why` about it.'}"
                raise _Stopped(Setback(kind=SetbackKind.JOB, message=message))
            if view.get("blocked_reason"):
                self._note_once(build.job_id, f"Build {build.build_no} of job {build.job_id} waits: {reason}")
            time.sleep(pause)
            pause = min(1.5 * pause, MAX_POLL_SECONDS)

    def _ask(self, build: StoredBuild) -> dict[str, Any] | None:
        """Return the build object, None if there is none; raise _Stopped if the gateway does not answer."""
        deadline = time.monotonic() + self.budget
        pause = FIRST_POLL_SECONDS
        while True:
            wait = 0.0
            try:
                answer = self.client.build(build.job_id, str(build.build_no), deadline=deadline)
            except GatewayAway as error:
                reason = str(error)
                if error.final:
                    raise _Stopped(Setback(kind=SetbackKind.AWAY, message=reason)) from error
            else:
                content = answer.content or {}
                if answer.status == 200 and "testnod" in content:
                    return content
                message = self.client.without_token(str(content.get("error_msg") or ""))
                if answer.status == 404 and message:
                    return None
                if answer.status < 500 and answer.status != 429:
                    remedy = message or f"The server answered {answer.status}, and not as a gateway. Check BRIDGE_URL."
                    if answer.status == 403:
                        remedy += " A backfill needs the scopes upload and status."
                    raise _Stopped(Setback(kind=SetbackKind.REFUSED, message=remedy, patience=False))
                reason, wait = message or f"it answered {answer.status}", answer.retry_after or 0.0
            pause = max(min(2 * pause, MAX_POLL_SECONDS), wait)
            if time.monotonic() + pause >= deadline:
                raise _Stopped(Setback(kind=SetbackKind.AWAY, message=reason))
            self._note_once("", f"The gateway is away ({reason}). It is waited for.")
            time.sleep(pause)

    def _note_once(self, about: str, sentence: str) -> None:
        with self._lock:
            if self._noted.get(about) != sentence:
                self._noted[about] = sentence
                self.note(sentence)


def _is_finished(view: Mapping[str, Any]) -> bool:
    """Return whether the run is finalized with all reports; what an upload has just added may not be seen yet."""
    return view["id"] is None or (view["state"] in FINAL_STATES and "pending" not in _delivery_states(view))


def _delivery_states(view: Mapping[str, Any]) -> list[str]:
    return [
        delivery["state"]
        for report in view["reports"]
        for delivery in report["deliveries"]
        if delivery["target"] == "testnod"
    ]


def _progress_of(view: Mapping[str, Any]) -> object:
    return view["state"], sorted(_delivery_states(view)), len(view["testnod"]["runs"])


# -- files -------------------------------------------------------------------------------------------------------


def _known_end(view: Mapping[str, Any], files: Sequence[StoredFile]) -> BuildEnd:
    """Return the end of a build that the gateway had before: more reports would open a second run."""
    digests = {report["received_sha256"] for report in view["reports"]}
    missing = sum(_digest(file) not in digests for file in files)
    has = f"The gateway has {counted(len(view['reports']), 'report')} of it already"
    message = f"{has}, and {counted(missing, 'file')} here with other contents, left out." if missing else ""
    return BuildEnd(progress=BuildProgress.KNOWN, skipped=missing, message=message)


def _digest(file: StoredFile) -> str:
    digest = sha256()
    try:
        for chunk in _part(file).chunks():
            digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


@dataclass(kw_only=True, slots=True)
class Examined:
    """What validation finds in files; the pairs are names of files and messages."""

    reports: list[StoredFile] = field(default_factory=list)  # to send
    skipped: int = 0  # XML of another kind
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    invalid: list[tuple[str, str]] = field(default_factory=list)
    tests: int = 0
    failures: int = 0


def examine(files: Iterable[StoredFile]) -> Examined:
    """Return what is in files. Invalid ones are sent too: a route may repair them, and the gateway keeps them."""
    found = Examined()
    for file in files:
        part = _part(file)
        try:
            result = validate(part.chunks) if is_plain(next(part.chunks(), b"")) else None
        except OSError as error:
            found.unreadable.append((file.name, f"It cannot be read: {error.strerror or error}."))
            continue
        if isinstance(result, Invalid) and result.reason == NOT_JUNIT:
            found.skipped += 1
            continue
        found.reports.append(file)
        if isinstance(result, Invalid):
            found.invalid.append((file.name, f"{result.found} {result.remedy}"))
        elif result is not None:
            found.tests += result.counts.tests
            found.failures += result.counts.failures + result.counts.errors
    return found


def _part(file: StoredFile) -> Part:
    return Part(name=file.name, path=file.path, size=file.size, offset=file.offset)


def _batches(build: StoredBuild, files: Sequence[StoredFile], stated: Mapping[str, str]) -> list[Batch]:
    """Return the requests of a build: the last one states that it is complete."""
    parameters = {"job_id": build.job_id, "build_no": str(build.build_no), **stated}
    by_node: dict[str, list[Part]] = {}
    for file in files:
        by_node.setdefault(file.node_id, []).append(_part(file))
    if len(by_node) > 1:
        groups = [batches_of(_of_node(parameters, node), by_node[node], complete=False) for node in by_node]
        return [*chain.from_iterable(groups), Batch(parameters=parameters, parts=(), complete=True)]
    node, parts = next(iter(by_node.items()), ("", []))
    return batches_of(_of_node(parameters, node), parts, complete=True)


def _of_node(parameters: Mapping[str, str], node_id: str) -> dict[str, str]:
    return {**parameters, **({"node_id": node_id} if node_id else {})}
