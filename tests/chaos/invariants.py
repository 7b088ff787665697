"""What must hold after a run of chance: each rule yields a sentence for everything that breaks it.

It knows the promises of docs/architecture.md and the lines (a) to (i) of what the bridge must survive.
"""

import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bridge.domain.build import EndReason
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.context import GIVEN_UP
from bridge.sandbox.runs import SandboxRun, State, Upload
from tests.chaos.evidence import Evidence, Row
from tests.chaos.greedy import NAME
from tests.chaos.hostile import JOB, STRANGER, Rejected
from tests.chaos.keeper import End
from tests.chaos.machine import NAME as MACHINE
from tests.chaos.plan import GREEDY_JOB
from tests.chaos.stage import GREEDY, GREEDY_PROJECT
from tests.support.canaries import leaks
from tests.support.reckoning import GENERATIONS, all_runs, counting_runs
from tests.support.weed import SECRET_KEY

BEAT_SECONDS = {"cleanup": 70.0}  # it turns once a minute
YOUNG_SECONDS = 15.0  # all others turn every two seconds; the machine may be busy
BUGS = ("reconcile_failed", "task_restarted", "Traceback (most recent call last)", "never retrieved")
SLACK_US = 2 * SECOND
"""What a fault has begun may show a little later: a connection that is cut, a lease that runs out."""

UPLOAD_US = 60 * SECOND  # bytes of a try that was cut by a death were written at most so long before
MAX_FOREIGN = 10
"""Rejections that a build has of a caller that is not proven, or that may use no route of the job."""

RECORD_US = 6 * SECOND  # a gateway that hangs or is full may leave a rejection out within this time
KEEPS = ("disk", "ledger", "spool")  # what a gateway keeps reports in
LATE = ("gateway", MACHINE)  # a gateway that stands still, or gets too little of the machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One invariant of one run: it holds where nothing is `broken`."""

    name: str
    note: str
    broken: tuple[str, ...]


def judge(evidence: Evidence) -> list[Verdict]:
    """Hold all invariants against what is left of a run."""
    return [Verdict(name=name, note=note(evidence), broken=tuple(rule(evidence))) for name, rule, note in INVARIANTS]


# -- what several rules ask ----------------------------------------------------------------------------------------


def _deliveries(build: Row) -> Iterator[tuple[Row, Row]]:
    """Yield each report of a build as the API shows it, with what it is owed to TestNod."""
    for report in build["reports"]:
        for delivery in report["deliveries"]:
            if delivery["target"] == "testnod":
                yield report, delivery


def _uploads(runs: Iterable[SandboxRun]) -> list[Upload]:
    return [upload for run in runs for upload in run.uploads]


def _build_id(build: Row) -> str:
    return f"codearts-{build['job_id']}-{build['build_no']}"


def _runs(evidence: Evidence, build: Row) -> list[SandboxRun]:
    """Return all runs of a build, also those that were replaced."""
    return all_runs(evidence.stage.world, _build_id(build))


def _counting_runs(evidence: Evidence, build: Row) -> list[SandboxRun]:
    return counting_runs(evidence.stage.world, _build_id(build))


def _deaths(evidence: Evidence) -> list[tuple[int, int]]:
    """Return when a process had ended and none had taken its place yet."""
    return [(end.ended_at, end.back_at) for end in evidence.ends]


def _died(evidence: Evidence, began_at: int, ended_at: int) -> bool:
    return any(died <= ended_at and began_at <= back for died, back in _deaths(evidence))


def _met(evidence: Evidence, whom: tuple[str, ...], began_at: int, ended_at: int) -> bool:
    return evidence.stage.troubles.met(whom, began_at - SLACK_US, ended_at + SLACK_US)


def _unwritable(evidence: Evidence, began_at: int, ended_at: int) -> bool:
    """Return whether a gateway may have been unable to write something then."""
    return _met(evidence, (*LATE, *KEEPS), began_at, ended_at) or _died(evidence, began_at, ended_at)


# -- (a) to (f) ------------------------------------------------------------------------------------------------------


def accepted_is_kept(evidence: Evidence) -> Iterator[str]:
    """(a) Every report that was answered "success" is delivered, or dead and visible."""
    shown = {
        (key, report["node_id"], report["name"], report["received_sha256"]): delivery
        for key, build in evidence.shown.items()
        for report, delivery in _deliveries(build)
    }
    for sent in sorted(evidence.books.accepted, key=str):
        delivery = shown.get((sent.build, sent.node_id, sent.name, sent.sha256))
        if delivery is None:
            yield f"{sent} was accepted and is not shown"
        elif delivery["state"] == "pending":
            yield f"{sent} is still owed: {delivery['last_error']}"
        elif delivery["state"] == "dead" and not delivery["last_error"]:
            yield f"{sent} is dead without a reason"


def runs_are_finalized(evidence: Evidence) -> Iterator[str]:
    """(b) Every run that was opened is finalized; each that counts and has a report has left pending."""
    for key, build in evidence.shown.items():
        if build["state"] not in ("finalized", "no_run"):
            yield f"{key} is {build['state']}: {build['last_error']}"
        counting = _counting_runs(evidence, build)
        at = evidence.stage.world.micros()
        if build["stuck_reason"] and all(run.status_at(at) is not State.PENDING for run in counting):
            yield f"{key} is shown as stuck, and no run of it is pending: {build['stuck_reason']}"
        for run in _runs(evidence, build):
            yield from _unfinished(evidence, key, build, run, counts=run in counting)
    known = {_build_id(build) + end for build in evidence.shown.values() for end in GENERATIONS}
    for run in evidence.stage.world.runs.all():
        if run.build_id not in known:
            yield f"run {run.id} of {run.build_id} was opened for a build that is not shown"


def _unfinished(evidence: Evidence, key: str, build: Row, run: SandboxRun, *, counts: bool) -> Iterator[str]:
    if not run.finalize_calls:
        yield f"{key}: run {run.id} was never finalized"
        return
    puts = [upload.put_at for upload in run.uploads if upload.put_at is not None]
    if puts and run.finalize_calls[-1] < max(puts):
        yield f"{key}: run {run.id} was not finalized after its last upload"
    if run.status_at(evidence.stage.world.micros()) in (State.PROCESSED, State.FAILED):
        return
    named = {row["upload_id"] for row in evidence.tables["registrations"]}
    holding = [upload for upload in run.uploads if upload.terminal_at() is None]
    if counts and puts:
        by = ", ".join(str(upload.id) for upload in holding)
        yield (
            f"{key}: run {run.id} of {run.build_id} is held by the uploads {by} and was not replaced: "
            f"{build['stuck_reason']}"
        )
    elif counts and not build["stuck_reason"]:
        yield f"{key}: run {run.id} is pending and the build is not shown as stuck"
    for upload in holding:
        if str(upload.id) in named:
            yield f"{key}: run {run.id} is held by upload {upload.id}, whose id is known"


def bytes_are_the_same(evidence: Evidence) -> Iterator[str]:
    """(c) What was PUT is what was accepted, and TestNod has each delivered report once in the runs that count."""
    for key, build in evidence.shown.items():
        sent = {sent.sha256 for sent in evidence.books.sent if sent.build == key}
        for upload in _uploads(_runs(evidence, build)):
            if upload.sha256 is not None and upload.sha256 not in sent:
                yield f"{key}: upload {upload.id} holds bytes that were never sent"
        uploads = _uploads(_counting_runs(evidence, build))
        at_testnod = Counter(upload.sha256 for upload in uploads if upload.parsed_at and upload.failed_at is None)
        delivered = Counter(
            report["received_sha256"] for report, delivery in _deliveries(build) if delivery["state"] == "delivered"
        )
        for digest in at_testnod | delivered:
            if at_testnod[digest] != delivered[digest]:
                yield f"{key}: TestNod has {digest} {at_testnod[digest]} times, delivered are {delivered[digest]}"


def spool_is_as_the_ledger_says(evidence: Evidence) -> Iterator[str]:
    """(d) Every blob that a row names is there and whole, and no bytes are kept that nothing can need."""
    blobs = {blob.name: blob for blob in evidence.blobs}
    unfinished = {row["report_id"] for row in evidence.tables["deliveries"] if row["state"] != "delivered"}
    confirmed = {row["id"] for row in evidence.tables["builds"] if row["confirm_until"] is None}
    for row in evidence.tables["reports"]:
        if (row["blob"] or row["body"]) and row["id"] not in unfinished and row["build_id"] in confirmed:
            yield f"report {row['id']} is delivered and its bytes are still kept"
        if not (row["blob"] or row["body"]) and row["id"] in unfinished:
            yield f"report {row['id']} is not delivered and its bytes are gone"
        if row["blob"] and row["blob"] not in blobs:
            yield f"blob {row['blob']} of report {row['id']} is not in the spool"
        if row["blob"] in blobs and blobs[row["blob"]].digest != row["sent_sha256"]:
            yield f"blob {row['blob']} of report {row['id']} is not what was accepted"
    named = {row["blob"] for table in ("reports", "rejections") for row in evidence.tables[table]}
    for blob in evidence.blobs:
        cut_off = _died(evidence, blob.written_at, blob.written_at + UPLOAD_US)
        if blob.name not in named and not (
            cut_off or _met(evidence, (MACHINE, *KEEPS), blob.written_at, blob.written_at)
        ):
            yield f"blob {blob.name} has no row, and nothing kept it from getting one"
    yield from (f"{name} was left in the spool" for name in evidence.leftovers)


def nothing_leaked(evidence: Evidence) -> Iterator[str]:
    """(e) No secret is in any output, page, metric, answer, row or blob."""
    found = leaks(evidence.texts, STRANGER, SECRET_KEY, GREEDY, GREEDY_PROJECT)
    yield from (f"found: {secret}" for secret in set(found))


def loops_live(evidence: Evidence) -> Iterator[str]:
    """(f) Every task's heartbeat is young, and nothing would refuse an upload."""
    for health in evidence.health:
        yield from (f"not ready: {reason}" for reason in health["reasons"])
        for task in health["tasks"]:
            if task["heartbeat_age_seconds"] > BEAT_SECONDS.get(task["name"], YOUNG_SECONDS):
                yield f"the task {task['name']} last turned {task['heartbeat_age_seconds']:.0f} s ago"


# -- (g) to (i): mischief of others, and of clocks ---------------------------------------------------------------------


def good_builds_beside_a_bad_one_end(evidence: Evidence) -> Iterator[str]:
    """(g) While one build still meets odd answers only, every other one is finalized, and that one is shown."""
    for key, build in evidence.beside_bad.items():
        states = [delivery["state"] for _, delivery in _deliveries(build)]
        if key == evidence.stage.bad.key:
            if evidence.stage.bad.given and not _shows_trouble(build):
                yield f"{key} meets odd answers only, is {build['state']} ({', '.join(states)}), and nothing shows why"
        elif build["state"] not in ("finalized", "no_run") or "pending" in states:
            yield f"{key} is {build['state']} ({', '.join(states)}) beside a bad build: {build['last_error']}"


def _shows_trouble(build: Row) -> bool:
    errors = [delivery["last_error"] for _, delivery in _deliveries(build)]
    return any((build["last_error"], build["stuck_reason"], *errors))


def callers_stay_in_their_routes(evidence: Evidence) -> Iterator[str]:
    """(h) A caller leaves nothing in another route: no report, end, rejection, run or delivery."""
    yield from (f"the greedy caller was answered success: {what}" for what in evidence.greedy.taken)
    keys = {row["id"]: row["key"] for row in evidence.tables["builds"]}
    for row in evidence.tables["reports"]:
        if (row["caller"] == NAME) != _is_greedy(keys[row["build_id"]]):
            yield f"report {row['id']} of {keys[row['build_id']]} is by {row['caller']}"
    for row in evidence.tables["builds"]:
        if row["complete_at"] is not None and row["key"] not in evidence.books.completed:
            yield f"{row['key']} was completed by a caller that may not"
        if row["route"] and (row["route"] == NAME) != _is_greedy(row["key"]):
            yield f"{row['key']} is in the route {row['route']}"
    foreign = [row for row in evidence.tables["rejections"] if not _is_greedy(row["key"])]
    for (key, caller), count in Counter((row["key"], row["caller"]) for row in foreign).items():
        # What gateways record in the same moment, none of them counts; the next one deletes it.
        if caller in ("", NAME) and count > MAX_FOREIGN + len(evidence.stage.gateways) - 1:
            yield f"{key} has {count} rejections of {caller or 'callers that are not proven'}"
    yield from _replaced_rejections(evidence)
    for run in evidence.stage.world.runs.all():
        if (run.project.token == GREEDY_PROJECT) != (GREEDY_JOB in run.build_id):
            yield f"run {run.id} of {run.build_id} is in the project {run.project.name}"


def _replaced_rejections(evidence: Evidence) -> Iterator[str]:
    kept = {row["request_id"] for row in evidence.tables["rejections"]}
    by_file: defaultdict[str, list[Rejected]] = defaultdict(list)
    for rejected in evidence.pests.rejected:
        by_file[rejected.what].append(rejected)
    for what, times in by_file.items():
        lost = not any(each.request_id in kept for each in times)
        if lost and not any(_unwritable(evidence, each.at - RECORD_US, each.at) for each in times):
            yield f'the rejection of "{what}" was not recorded, or another one has replaced it'


def _is_greedy(key: str) -> bool:
    return key.startswith(GREEDY_JOB)


def no_clock_ends_anything(evidence: Evidence) -> Iterator[str]:
    """(i) Nothing is given up, ended or deleted as too old, and no outage counts that never was: runs take minutes."""
    for row in evidence.tables["deliveries"]:
        if row["state"] == "dead" and str(row["last_error"]).startswith(GIVEN_UP):
            yield f"delivery {row['id']} was given up: {row['last_error']}"
    for row in evidence.tables["builds"]:
        if row["end_reason"] in (EndReason.MAX_AGE, EndReason.IDLE):
            yield f"{row['key']} counts as ended for {row['end_reason']}"
    lasted_us = evidence.stage.now() - evidence.stage.began_at
    for row in evidence.tables["circuit_breakers"]:
        last_us = (row["outage_ended_at"] or 0) - (row["outage_began_at"] or 0)
        outage_us = row["total_outage_us"] + max(0, last_us)
        if not 0 <= outage_us <= lasted_us:
            yield f"{row['name']} counts {outage_us // SECOND} s of outages in {lasted_us // SECOND} s"
    for row in evidence.tables["rejections"]:
        gone = row["sha256"] is not None and row["kept_until"] is None and row["sent_at"] is None
        off_us = evidence.stage.troubles.clock_off_us
        if gone and not _unwritable(evidence, row["rejected_at"] - off_us, row["rejected_at"] + off_us):
            yield f"the bytes of rejection {row['id']} of {row['key']} are gone"


# -- and what else was promised --------------------------------------------------------------------------------------


def registrations_have_reasons(evidence: Evidence) -> Iterator[str]:
    """Promise 4: at most one registration more per report and death, lost lease, lost answer or spent URL."""
    by_delivery: defaultdict[int, list[Row]] = defaultdict(list)
    bad = {row["id"] for row in evidence.rows("builds", key=evidence.stage.bad.key)}
    for row in sorted(evidence.tables["registrations"], key=lambda row: int(row["id"])):
        by_delivery[row["delivery_id"]].append(row)
    for delivery_id, rows in by_delivery.items():
        ends = [row["requested_at"] for row in rows[1:]] + [evidence.stage.now()]
        for row, ended_at in zip(rows, ends, strict=True):
            excused = row["build_id"] in bad or _excused(evidence, row["requested_at"], ended_at)
            if row["state"] != "stored" and not excused:
                yield f"delivery {delivery_id}: registration {row['id']} is {row['state']} without a fault in its time"
        stored = Counter(row["generation"] for row in rows if row["state"] == "stored")
        yield from (f"delivery {delivery_id} is stored {count} times" for count in stored.values() if count > 1)
    for key, build in evidence.shown.items():
        (row,) = evidence.rows("builds", key=key)
        known = len(evidence.rows("registrations", build_id=row["id"]))
        uploads = _uploads(_runs(evidence, build))
        if len(uploads) > known:
            yield f"{key}: TestNod has {len(uploads)} uploads, the ledger {known} registrations"


def _excused(evidence: Evidence, began_at: int, ended_at: int) -> bool:
    off_us = evidence.stage.troubles.clock_off_us  # times of the ledger, which a wrong clock may have written
    began_at, ended_at = began_at - off_us, ended_at + off_us
    whom = ("testnod", "s3", "clock", *LATE, *KEEPS)
    return _met(evidence, whom, began_at, ended_at) or _died(evidence, began_at - SLACK_US, ended_at + SLACK_US)


def uploads_fail_only_for_the_gateways_own_reasons(evidence: Evidence) -> Iterator[str]:
    """Promise 5: an upload is put off only while a gateway stops or starts, or what it keeps reports in is away."""
    yield from (f"an honest upload was refused: {said}" for said in evidence.books.refused)
    for try_ in evidence.books.put_off:
        stopping = _died(evidence, try_.requested_at, try_.answered_at + STOPPING_US)
        if not (stopping or _met(evidence, (*LATE, *KEEPS), try_.requested_at - PROBED_US, try_.answered_at)):
            yield f"an upload was put off at {try_.answered_at}, while nothing was wrong with the gateways"


STOPPING_US = 8 * SECOND  # server.shutdown_timeout of the stage, and what it takes to end
PROBED_US = 10 * SECOND  # a spool in S3 is seen to be back a little later


def hostile_uploads_are_refused(evidence: Evidence) -> Iterator[str]:
    """No hostile upload is accepted, and none leaves a row or a build."""
    yield from (f'"{what}" was answered "success"' for what in evidence.pests.taken)
    yield from (f"{key} was opened for a hostile upload" for key in evidence.shown if key.startswith(JOB))


def no_bug_showed(evidence: Evidence) -> Iterator[str]:
    """No task crashed, no build failed by a bug, and each gateway that was asked to end exited with 0."""
    for gateway in evidence.stage.gateways:
        log = gateway.stderr()
        yield from (f'a log says "{sign}" {log.count(sign)} times' for sign in BUGS if sign in log)
    yield from (f"a gateway ended with {code} when asked to" for code in evidence.codes if code != 0)
    yield from (f"a gateway ended with {end.code}" for end in evidence.ends if not _may_end(evidence, end))


def _may_end(evidence: Evidence, end: End) -> bool:
    """Whether a process may have ended so: killed, asked to, or unable to start on what it keeps things in."""
    if end.code == -signal.SIGKILL:
        return True
    if end.asked:
        return end.code == 0 or (end.code == -signal.SIGTERM and not end.listened)  # Python itself had hardly begun
    return not end.listened and _met(evidence, KEEPS, end.ended_at - SLACK_US, end.ended_at)


# -- notes -----------------------------------------------------------------------------------------------------------


def _states(evidence: Evidence) -> str:
    states = Counter(delivery["state"] for build in evidence.shown.values() for _, delivery in _deliveries(build))
    return f"{len(evidence.books.accepted)} accepted; shown {_listed(states)}"


def _run_states(evidence: Evidence) -> str:
    at, runs = evidence.stage.world.micros(), evidence.stage.world.runs.all()
    stuck = sum(bool(build["stuck_reason"]) for build in evidence.shown.values())
    replaced = sum(run.build_id.endswith(GENERATIONS[1:]) for run in runs)
    states = _listed(Counter(run.status_at(at).value for run in runs))
    return f"{len(runs)} runs: {states}; {replaced} replace others; {stuck} builds stuck"


def _objects(evidence: Evidence) -> str:
    return f"{len(evidence.stage.world.objects)} objects"


def _spool(evidence: Evidence) -> str:
    kept = sum(bool(row["blob"] or row["body"]) for row in evidence.tables["reports"])
    return f"{len(evidence.blobs)} blobs, {kept} reports with bytes"


def _texts(evidence: Evidence) -> str:
    return f"{sum(map(len, evidence.texts)) // 1024} KiB searched"


def _loops(evidence: Evidence) -> str:
    oldest = max(
        (task["heartbeat_age_seconds"], task["name"]) for health in evidence.health for task in health["tasks"]
    )
    return f"the oldest is {oldest[0]:.0f} s, of the {oldest[1]}"


def _registrations(evidence: Evidence) -> str:
    return _listed(Counter(row["state"] for row in evidence.tables["registrations"]))


def _tries(evidence: Evidence) -> str:
    return f"{len(evidence.books.put_off)} of {evidence.books.counts['tries']} tries put off"


def _pests(evidence: Evidence) -> str:
    return _listed(evidence.pests.counts)


def _bad(evidence: Evidence) -> str:
    return f"{evidence.stage.bad.given} odd answers beside {len(evidence.beside_bad)} builds"


def _greedy(evidence: Evidence) -> str:
    own = sum(row["caller"] == NAME for row in evidence.tables["reports"])
    return f"{own} reports of its own; {_listed(evidence.greedy.counts)}"


def _clock(evidence: Evidence) -> str:
    return f"wrong by {evidence.stage.troubles.clock_off_us // SECOND} s at most"


def _ends(evidence: Evidence) -> str:
    codes = _listed(Counter(str(end.code) for end in evidence.ends))
    down_us = sum(end.back_at - end.ended_at for end in evidence.ends)
    return f"{len(evidence.ends)} ends: {codes}; {down_us // SECOND} s without a process that listened"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


Rule = Callable[[Evidence], Iterable[str]]
INVARIANTS: tuple[tuple[str, Rule, Callable[[Evidence], str]], ...] = (
    ("(a) every accepted report is delivered, or dead and visible", accepted_is_kept, _states),
    ("(b) every run that was opened is finalized, and none that counts is pending", runs_are_finalized, _run_states),
    ("(c) bytes PUT are bytes accepted, each report once", bytes_are_the_same, _objects),
    ("(d) the spool holds what the ledger says", spool_is_as_the_ledger_says, _spool),
    ("(e) no canary is anywhere", nothing_leaked, _texts),
    ("(f) every task's heartbeat is young", loops_live, _loops),
    ("(g) good builds end beside a bad one, which is shown", good_builds_beside_a_bad_one_end, _bad),
    ("(h) a caller leaves no trace in another route", callers_stay_in_their_routes, _greedy),
    ("(i) no clock gives up, ends, delays or deletes anything", no_clock_ends_anything, _clock),
    ("extra registrations have their reasons", registrations_have_reasons, _registrations),
    ("uploads fail for the gateways' own reasons only", uploads_fail_only_for_the_gateways_own_reasons, _tries),
    ("hostile uploads are refused", hostile_uploads_are_refused, _pests),
    ("no bug showed", no_bug_showed, _ends),
)
