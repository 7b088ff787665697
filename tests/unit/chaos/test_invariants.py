from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bridge.domain.lifecycle.context import GIVEN_UP
from bridge.sandbox.runs import RegisteredUpload
from bridge.sandbox.state import SandboxState
from tests.chaos.evidence import Blob, Evidence
from tests.chaos.faults import Troubles
from tests.chaos.greedy import GreedyCaller
from tests.chaos.honest import Books, PutOff, Sent
from tests.chaos.hostile import Pests, Rejected
from tests.chaos.invariants import judge
from tests.chaos.keeper import End
from tests.chaos.plan import BAD_JOB, GREEDY_JOB
from tests.chaos.stage import GREEDY, GREEDY_PROJECT
from tests.support.canaries import CALLER

JOB, DIGEST = "a" * 32, "d" * 64
KEY = f"{JOB}/1"
NOW = 1_000_000_000
SENT = Sent(build=KEY, node_id="default", name="a.xml", sha256=DIGEST)
BLOB = Blob(name="2026010100/1", digest=DIGEST, written_at=NOW)


def evidence(*, finalized=True, received=DIGEST, put=True):
    """Return what a run of one build with one report leaves behind."""
    world = SandboxState(now=lambda: NOW / 1_000_000, testnod_url="", s3_url="")
    project = world.runs.open_project("token", "project")
    upload = world.runs.register(project, RegisteredUpload(build_id=f"codearts-{JOB}-1"), at=1, processing_us=1)
    if put:
        world.runs.received(upload.key, sha256=received, size=1, at=2)
    if finalized:
        world.runs.finalize(project, f"codearts-{JOB}-1", at=3)
    delivery = {"target": "testnod", "state": "delivered", "last_error": None}
    report = {"node_id": "default", "name": "a.xml", "received_sha256": DIGEST, "deliveries": [delivery]}
    build = {"job_id": JOB, "build_no": 1, "state": "finalized", "stuck_reason": None, "last_error": None}
    build["reports"] = [report]
    gateway = SimpleNamespace(stderr=lambda: "")
    bad = SimpleNamespace(key=f"{BAD_JOB}/1", given=3)
    stage = SimpleNamespace(world=world, troubles=Troubles(), gateways=[gateway], bad=bad, now=lambda: NOW, began_at=0)
    life = {"id": 1, "delivery_id": 1, "build_id": 1, "state": "stored", "requested_at": 1, "upload_id": str(upload.id)}
    life["generation"] = 1
    return Evidence(
        stage=stage,
        books=Books(sent={SENT}, accepted={SENT}),
        pests=Pests(stage),
        greedy=GreedyCaller(stage),
        beside_bad={KEY: deepcopy(build)},
        shown={KEY: build},
        tables={
            "builds": [
                {
                    "id": 1,
                    "key": KEY,
                    "confirm_until": None,
                    "complete_at": None,
                    "end_reason": "build_info",
                    "route": "all",
                }
            ],
            "reports": [{"id": 1, "build_id": 1, "body": None, "blob": None, "sent_sha256": DIGEST, "caller": "ci"}],
            "deliveries": [{"id": 1, "report_id": 1, "state": "delivered", "last_error": None}],
            "registrations": [life],
            "rejections": [],
            "circuit_breakers": [{"name": "testnod", "total_outage_us": 5, "outage_began_at": 1, "outage_ended_at": 2}],
        },
        blobs=[],
        leftovers=[],
        health=[{"reasons": [], "tasks": [{"name": "dispatcher", "heartbeat_age_seconds": 1.0}]}],
        ends=[],
        codes=[0],
        texts=["nothing"],
    )


def broken(found):
    """Return the names of the invariants that do not hold."""
    return [verdict.name for verdict in judge(found) if verdict.broken]


def test_a_good_end_breaks_nothing():
    assert broken(evidence()) == []


def not_shown(found):
    return replace(found, shown={})


def owed(found):
    found.shown[KEY]["reports"][0]["deliveries"][0]["state"] = "pending"
    return found


def sent_twice(found):
    life = {**found.tables["registrations"][0], "id": 2, "requested_at": 2}
    return replace(found, tables={**found.tables, "registrations": [{**life, "id": 0, "state": "lost"}, life]})


def ended(code, *, asked, listened=True):
    return End(code=code, asked=asked, listened=listened, ended_at=5, back_at=6)


@pytest.mark.parametrize(
    ("spoilt", "breaks"),
    [
        (lambda: not_shown(evidence()), "(a)"),
        (lambda: owed(evidence()), "(a)"),
        (lambda: evidence(finalized=False), "(b)"),
        (lambda: evidence(received="e" * 64), "(c)"),
        (lambda: evidence(put=False), "(c)"),
        (lambda: replace(evidence(), blobs=[BLOB]), "(d)"),
        (lambda: replace(evidence(), leftovers=["x.tmp"]), "(d)"),
        (lambda: replace(evidence(), texts=[f"token {CALLER}"]), "(e)"),
        (lambda: replace(evidence(), texts=[f"X-Amz-Signature={'0' * 64}"]), "(e)"),
        (
            lambda: replace(
                evidence(), health=[{"reasons": ["full"], "tasks": [{"name": "a", "heartbeat_age_seconds": 1}]}]
            ),
            "(f)",
        ),
        (
            lambda: replace(
                evidence(), health=[{"reasons": [], "tasks": [{"name": "a", "heartbeat_age_seconds": 99}]}]
            ),
            "(f)",
        ),
        (lambda: sent_twice(evidence()), "extra registrations"),
        (lambda: replace(evidence(), books=Books(put_off=[PutOff(requested_at=NOW, answered_at=NOW)])), "uploads fail"),
        (lambda: replace(evidence(), books=Books(refused=["400"])), "uploads fail"),
        (lambda: replace(evidence(), ends=[ended(1, asked=False)]), "no bug"),
        (lambda: replace(evidence(), ends=[ended(-15, asked=True)]), "no bug"),
        (lambda: replace(evidence(), codes=[1]), "no bug"),
    ],
)
def test_each_invariant_says_what_breaks_it(spoilt, breaks):
    assert any(name.startswith(breaks) for name in broken(spoilt()))


@pytest.mark.parametrize("whom", ["gateway 0", "machine", "ledger"])
def test_an_upload_may_be_put_off_while_a_gateway_or_what_it_needs_stands_still(whom):
    found = evidence()
    found.books.put_off.append(PutOff(requested_at=NOW, answered_at=NOW))
    found.stage.troubles.add(whom, "busy", NOW, NOW)

    assert broken(found) == []


@pytest.mark.parametrize("end", [ended(-9, asked=False), ended(0, asked=True), ended(-15, asked=True, listened=False)])
def test_a_death_is_no_bug(end):
    assert broken(replace(evidence(), ends=[end])) == []


def test_an_extra_registration_in_the_time_of_a_fault_has_its_reason():
    found = sent_twice(evidence())
    found.stage.troubles.add("testnod", "cut", 1, 2)
    assert broken(found) == []


def with_lost_registration(found):
    """Let the run be held by an upload whose id is unknown."""
    (run,) = found.stage.world.runs.all()
    found.stage.world.runs.register(run.project, RegisteredUpload(build_id=run.build_id), at=1, processing_us=1)
    lost = {**found.tables["registrations"][0], "id": 0, "state": "lost", "upload_id": None}
    found.stage.troubles.add("testnod", "cut", 1, 2)
    return replace(found, tables={**found.tables, "registrations": [lost, *found.tables["registrations"]]})


def replaced(found):
    runs = found.stage.world.runs
    (run,) = runs.all()
    again = runs.register(run.project, RegisteredUpload(build_id=f"{run.build_id}.2"), at=4, processing_us=1)
    runs.received(again.key, sha256=DIGEST, size=1, at=5)
    runs.finalize(run.project, f"{run.build_id}.2", at=6)
    stored = {
        **found.tables["registrations"][0],
        "id": 9,
        "state": "stored",
        "generation": 2,
        "upload_id": str(again.id),
    }
    found.shown[KEY]["stuck_reason"] = None
    return replace(found, tables={**found.tables, "registrations": [*found.tables["registrations"], stored]})


def test_a_run_that_a_lost_registration_holds_is_to_be_replaced_even_if_it_is_shown_as_stuck():
    found = with_lost_registration(evidence())
    found.shown[KEY]["stuck_reason"] = "1 lost registration may hold it"

    assert [name[:3] for name in broken(found)] == ["(b)"]
    assert broken(replaced(found)) == []


def test_a_build_is_not_shown_as_stuck_once_its_run_has_left_pending():
    found = evidence()
    found.shown[KEY]["stuck_reason"] = "run is pending 15 seconds after finalize"

    assert [name[:3] for name in broken(found)] == ["(b)"]


def test_a_report_in_two_runs_that_left_pending_is_there_twice():
    assert [name[:3] for name in broken(replaced(evidence()))] == ["(c)"]


REJECTION = {
    "id": 1,
    "key": KEY,
    "caller": "ci",
    "rejected_at": NOW,
    "sha256": None,
    "kept_until": None,
    "sent_at": None,
    "request_id": "r",
}
REJECTION |= {"body": None, "blob": None}


def row_changed(table, **changes):
    """Return a good end in which the first row of a table, or a new rejection, has other values."""
    found = evidence()
    rows = found.tables[table] or [REJECTION]
    return replace(found, tables={**found.tables, table: [{**rows[0], **changes}, *rows[1:]]})


def beside_bad(key, **changes):
    """Return a good end before which this build was shown so while one build was bad."""
    found = evidence()
    return replace(found, beside_bad={key: {**deepcopy(found.shown[KEY]), **changes}})


def beside_bad_owed():
    found = evidence()
    found.beside_bad[KEY]["reports"][0]["deliveries"][0]["state"] = "pending"
    return found


def taken(what):
    found = evidence()
    found.greedy.taken.append(what)
    return found


def rejections_of(caller, count):
    found = evidence()
    rows = [{**REJECTION, "id": number, "caller": caller} for number in range(count)]
    return replace(found, tables={**found.tables, "rejections": rows})


def rejection_lost(meanwhile=None):
    found = rejections_of("ci", 1)
    found.pests.rejected.append(Rejected(what="no XML", request_id="another", at=NOW))
    if meanwhile:
        found.stage.troubles.add(meanwhile, "full", NOW, NOW)
    return found


def run_in_another_project():
    found = evidence()
    runs = found.stage.world.runs
    runs.register(runs.open_project(GREEDY_PROJECT, "greedy"), RegisteredUpload(build_id="x"), at=1, processing_us=1)
    return found


@pytest.mark.parametrize(
    ("spoilt", "breaks"),
    [
        (lambda: beside_bad(KEY, state="ended"), "(g)"),
        (beside_bad_owed, "(g)"),
        (lambda: beside_bad(f"{BAD_JOB}/1", state="open"), "(g)"),
        (lambda: taken("upload"), "(h)"),
        (lambda: row_changed("reports", caller="greedy"), "(h)"),
        (lambda: row_changed("builds", complete_at=5), "(h)"),
        (lambda: row_changed("builds", route="greedy"), "(h)"),
        (lambda: row_changed("builds", key=f"{GREEDY_JOB}/1"), "(h)"),
        (lambda: rejections_of("greedy", 11), "(h)"),
        (rejection_lost, "(h)"),
        (lambda: rejections_of("", 11), "(h)"),
        (run_in_another_project, "(h)"),
        (lambda: row_changed("deliveries", state="dead", last_error=f"{GIVEN_UP} The last error was: x"), "(i)"),
        (lambda: row_changed("builds", end_reason="max_age"), "(i)"),
        (lambda: row_changed("builds", end_reason="idle"), "(i)"),
        (lambda: row_changed("circuit_breakers", total_outage_us=NOW + 1), "(i)"),
        (lambda: row_changed("circuit_breakers", total_outage_us=-2), "(i)"),
        (lambda: row_changed("circuit_breakers", outage_ended_at=NOW + 2), "(i)"),
        (lambda: row_changed("rejections", sha256=DIGEST), "(i)"),
        (lambda: replace(evidence(), texts=[f"token {GREEDY}"]), "(e)"),
        (lambda: replace(evidence(), texts=[f"token {GREEDY_PROJECT}"]), "(e)"),
    ],
)
def test_each_invariant_of_mischief_says_what_breaks_it(spoilt, breaks):
    found = spoilt()
    if breaks == "(h)" and found.tables["builds"][0]["key"] != KEY:  # other rules look it up
        found = replace(found, shown={}, books=Books())
    assert any(name.startswith(breaks) for name in broken(found))


@pytest.mark.parametrize(
    "well",
    [
        lambda: beside_bad(f"{BAD_JOB}/1", state="open", last_error="TestNod answered oddly."),
        lambda: row_changed("rejections", caller="ci"),
        lambda: row_changed("rejections", caller="greedy", key=f"{GREEDY_JOB}/1"),
        lambda: row_changed("rejections", sha256=DIGEST, kept_until=NOW),
        lambda: rejections_of("", 10),
        lambda: rejections_of("greedy", 10),
        lambda: rejections_of("ci", 11),
        lambda: rejection_lost(meanwhile="disk"),
        lambda: replace(row_changed("builds", complete_at=5), books=Books(sent={SENT}, completed={KEY})),
        lambda: row_changed("deliveries", state="delivered", last_error=f"{GIVEN_UP} Once."),
    ],
)
def test_what_is_shown_or_a_callers_own_breaks_nothing(well):
    assert broken(well()) == []


def test_a_wrong_clock_excuses_a_registration_whose_time_it_has_written():
    found = sent_twice(evidence())
    found.stage.troubles.add("clock 0", "90 s ahead", NOW // 2, NOW // 2)
    assert broken(found) == ["extra registrations have their reasons"]
    found.stage.troubles.clock_off_us = NOW
    assert broken(found) == []
