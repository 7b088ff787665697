from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import MIRROR, TESTNOD, HealthSignal
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.mirror import (
    AGREES,
    COMPARE_AFTER,
    MAX_REQUEST_BYTES,
    MAX_REQUEST_FILES,
    STAGES_TIMEOUT,
    MirrorRejected,
    MirrorUploaded,
    ReportNode,
    ReportStage,
    TooLargeToSign,
    after_upload,
    compare_due_at,
    group_into_requests,
    node_for,
    node_without_stages,
    of_mirror,
    reports_to_mirror,
)
from bridge.domain.outcomes import (
    CorruptBody,
    CredentialsRejected,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from bridge.domain.plan import plan
from bridge.domain.routing import Route
from bridge.domain.steps import Apply, Execute, Finalize, UploadToMirror, Wait
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    PARAMETERS,
    POLICY,
    a_build,
    breakers,
    delivered,
    ended,
    finalized,
    opened,
    pending,
    report,
    stored,
)

MIRRORING = replace(POLICY, routes=(Route(name=PARAMETERS.route, mirror=True),))


def copy(number, delivery=pending, **values):
    """Return a delivery of report `number` to CodeArts."""
    return replace(delivery(100 + number, target=DeliveryTarget.CODEARTS, **values), report_id=number)


def test_small_files_of_one_node_share_a_request_and_others_go_alone():
    sizes = {
        1: ("a", 10),
        2: ("b", 10),
        3: ("a", 10),
        4: ("a", MAX_REQUEST_BYTES + 1),
        5: ("a", MAX_REQUEST_BYTES - 20),
    }
    reports = [replace(report(number), node_id=node, sent_size=size) for number, (node, size) in sizes.items()]
    copies = [copy(number) for number in sizes] + [copy(6, send_alone=True)]
    build = a_build(*copies, *reports)

    assert group_into_requests(build, copies) == [(101, 103, 105), (102,), (104,), (106,)]


def test_a_request_holds_so_many_files():
    copies = [copy(number) for number in range(1, MAX_REQUEST_FILES + 3)]

    assert [len(ids) for ids in group_into_requests(a_build(*copies), copies)] == [MAX_REQUEST_FILES, 2]


@pytest.mark.parametrize(
    ("sent", "stages", "node"),
    [
        ("n", [], "n"),
        ("n", [("n", False), ("m", True)], "n"),
        ("n", [("m", False)], "m"),
        ("n", [("k", False), ("m", True), ("o", False)], "m"),
        ("n", [("k", False), ("m", False)], "m"),
    ],
)
def test_reports_go_to_a_node_that_codearts_knows(sent, stages, node):
    known = [ReportStage(node_id=name, running=running, sequence=place) for place, (name, running) in enumerate(stages)]

    assert node_for(sent, known) == node


@pytest.mark.parametrize(
    "outcome",
    [
        NoSuchBuild(message="404 with a code of CodeArts"),
        Rejected(status=404, message="no such API"),
        Rejected(status=403, message="not allowed"),
        Rejected(status=400, message="bad request"),
        Rejected(status=200, message="an error with HTTP 200"),
        OutcomeUnknown(status=200, message="empty, garbled or too large"),
        OutcomeUnknown(status=204, message="nothing"),
        OutcomeUnknown(status=302, message="elsewhere"),
    ],
)
def test_reports_go_to_the_node_they_were_sent_with_if_codearts_answers_without_stages(outcome):
    assert node_without_stages("n", outcome, 0) == ReportNode(node_id="n")


@pytest.mark.parametrize(
    "outcome",
    [
        NotSent(message="no connection"),
        OutcomeUnknown(message="timed out, or cut"),
        OutcomeUnknown(status=500, message="broken"),
        OutcomeUnknown(status=503, message="away"),
        OutcomeUnknown(status=429, message="a large page"),
        Throttled(message="429"),
        CredentialsRejected(message="401"),
        Rejected(status=408, message="too slow"),
        Rejected(status=425, message="too early"),
    ],
)
def test_an_outage_of_full_stages_is_waited_for_but_not_for_long(outcome):
    assert node_without_stages("n", outcome, 0) is None
    assert node_without_stages("n", outcome, STAGES_TIMEOUT - 1) is None
    assert node_without_stages("n", outcome, STAGES_TIMEOUT) == ReportNode(node_id="n", unproven=True)


def test_only_what_has_bytes_and_may_go_there_is_owed():
    build = a_build(
        copy(1),
        report(2),
        report(3, has_bytes=False),
        report(4, caller_routes=("another",)),
        report(5, caller_routes=(PARAMETERS.route,)),
        report(6, generated=True),
    )

    assert [each.id for each in reports_to_mirror(build, PARAMETERS.route)] == [2, 5]


@pytest.mark.parametrize(
    ("values", "due_at"),
    [
        ({}, NOW - MINUTE + COMPARE_AFTER),
        ({"mirror": AGREES, "mirror_compared_at": NOW}, None),
        ({"mirror": AGREES, "mirror_compared_at": NOW - HOUR}, NOW - MINUTE + COMPARE_AFTER),
        ({"mirror": "differs", "mirror_compared_at": NOW, "mirror_due_at": NOW + 5}, NOW + 5),
        ({"mirror": "differs", "mirror_compared_at": NOW, "mirror_due_at": NOW + HOUR}, None),
    ],
    ids=["never", "agrees", "agreed before the last upload", "differs", "differs for good"],
)
def test_both_sides_are_compared_until_they_agree(values, due_at):
    assert compare_due_at(a_build(copy(1, delivered), **values), HOUR) == due_at


def test_nothing_is_compared_while_something_is_owed():
    assert compare_due_at(a_build(copy(1, delivered), copy(2)), HOUR) is None
    assert compare_due_at(a_build(delivered()), HOUR) is None


# -- in the plan -----------------------------------------------------------------------------------------------------


def test_what_came_is_owed_before_it_is_registered():
    step = plan(a_build(pending()), NOW, MIRRORING, breakers())

    assert isinstance(step, Apply)
    assert step.event == "mirror_deliveries_added"


def test_a_run_is_finalized_whatever_the_mirror_is_owed():
    build = ended(delivered(), copy(1, due_at=NOW + HOUR), stored(), ended_at=NOW - HOUR)

    assert plan(build, NOW, MIRRORING, breakers(opened(MIRROR))) == Execute((Finalize(confirm=False),))


def test_the_mirror_goes_on_while_testnod_is_away_and_the_build_waits_for_testnod():
    build = a_build(pending(), copy(1))
    assert plan(build, NOW, MIRRORING, breakers(opened(TESTNOD))) == Execute((UploadToMirror((101,)),))

    step = plan(build, NOW, MIRRORING, breakers(opened(TESTNOD), opened(MIRROR, probe_at=NOW + SECOND)))
    assert isinstance(step, Wait)
    assert step.waiting_on == TESTNOD


@pytest.mark.parametrize(("tripped", "probing", "requests"), [((), (), 4), ((opened(MIRROR),), (MIRROR,), 1)])
def test_one_request_alone_probes_the_mirror(tripped, probing, requests):
    numbers = range(1, 7)
    build = a_build(*map(pending, numbers), *(copy(number, send_alone=True) for number in numbers))
    policy = replace(MIRRORING, concurrency_per_build=4)

    step = plan(build, NOW, policy, breakers(opened(TESTNOD), *tripped, probing=probing))
    assert step == Execute(tuple(UploadToMirror((100 + number,)) for number in range(1, requests + 1)))


def test_a_route_that_does_not_mirror_blocks_its_copies_which_are_dead_only_if_that_lasts():
    build = finalized(delivered(), copy(1), stored())
    step = plan(build, NOW, POLICY, breakers())
    assert (step.event, "does not mirror" in step.changes[0].values["last_error"]) == ("delivery_blocked", True)

    build = apply(build, step.changes)
    assert isinstance(plan(build, NOW + POLICY.give_up_after - 1, POLICY, breakers()), Wait)
    dead = plan(build, NOW + POLICY.give_up_after, POLICY, breakers())
    assert (dead.event, dead.changes[0].values["state"]) == ("delivery_died", DeliveryState.DEAD)

    resumed = plan(build, NOW + HOUR, MIRRORING, breakers())
    assert resumed.event == "delivery_unblocked"
    build = apply(build, resumed.changes)
    assert build.report_seq == build.finalized_seq  # the run has all its reports
    assert plan(build, NOW + HOUR, MIRRORING, breakers()) == Execute((UploadToMirror((101,)),))


PAGE = Rejected(status=400, message="HTTP 400 without a readable message")
REFUSED = MirrorRejected(status=400, message="CB.00060200: Invalid parameter.")


def copies(*numbers):
    return [replace(pending(number, target=DeliveryTarget.CODEARTS), report_id=number) for number in numbers]


def after(outcome, *numbers, now=NOW):
    return [change.values for change in after_upload(copies(*numbers), outcome, now, POLICY, 0)]


def test_what_was_taken_is_delivered():
    (values,) = after(MirrorUploaded(), 1)
    assert (values["state"], values["delivered_at"]) == (DeliveryState.DELIVERED, NOW)


@pytest.mark.parametrize("outcome", [REFUSED, TooLargeToSign(message="too large"), CorruptBody(message="gone")])
def test_what_is_refused_alone_is_dead_and_together_is_sent_alone_at_once(outcome):
    (alone,) = after(outcome, 1)
    assert (alone["state"], alone["last_error"]) == (DeliveryState.DEAD, outcome.message)

    for together in after(outcome, 1, 2):
        assert "state" not in together
        assert (together["send_alone"], together["due_at"]) == (True, NOW)


@pytest.mark.parametrize("outcome", [PAGE, replace(PAGE, status=200), replace(PAGE, status=404)])
def test_a_page_of_something_in_front_kills_nothing_and_parts_what_was_sent_together(outcome):
    (alone,) = after(outcome, 1)
    assert "state" not in alone
    assert alone["attempts"] == 1
    assert alone["due_at"] > NOW
    assert alone["first_failure_at"] == NOW

    for together in after(outcome, 1, 2):
        assert "state" not in together
        assert together["send_alone"]
        assert together["due_at"] > NOW


@pytest.mark.parametrize(
    "outcome",
    [
        OutcomeUnknown(message="cut"),
        OutcomeUnknown(status=200, message="no success"),
        NotSent(message="no way"),
        Throttled(message="429"),
        CredentialsRejected(message="401"),
        NoSuchBuild(message="no such build"),
    ],
)
def test_what_failed_is_tried_again_together(outcome):
    found = after(outcome, 1, 2)
    assert len(found) == 2
    for values in found:
        assert "state" not in values
        assert "send_alone" not in values
        assert values["due_at"] > NOW


def test_a_codearts_that_refuses_one_report_in_its_own_words_works():
    assert of_mirror(REFUSED) == ((MIRROR, HealthSignal.SUCCESS, ""),)


@pytest.mark.parametrize("outcome", [PAGE, Throttled(message="429"), OutcomeUnknown(message="HTTP 500", status=500)])
def test_an_odd_answer_to_one_report_is_no_outage_by_itself(outcome):
    assert of_mirror(outcome) == ((MIRROR, HealthSignal.UNEXPECTED, outcome.message),)
