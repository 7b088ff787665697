"""docs/answers.md: each answer is built as its line has it, read by the code, and means what the line says."""

import re
from functools import partial
from pathlib import Path

import pytest

from bridge.domain.build import BuildState, DeliveryState, RegistrationState
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import RouteHealth
from bridge.domain.lifecycle.breaker_signals import of_codearts, of_register, of_storage, of_testnod
from bridge.domain.lifecycle.build_end import after_poll
from bridge.domain.lifecycle.finalize import after_confirm, after_finalize
from bridge.domain.lifecycle.mirror import of_mirror
from bridge.domain.lifecycle.upload import after_put, after_register, after_upload_failed
from bridge.domain.outcomes import Stored
from bridge.protocols.codearts_build import read_build_info, read_record_info
from bridge.protocols.codearts_check import read_refresh
from bridge.protocols.codearts_lists import read_job_list, read_record_details, read_record_list
from bridge.protocols.codearts_reports import read_upload
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3 import read_put
from bridge.protocols.testnod import read_finalize, read_register, read_upload_failed
from tests.support.builders import (
    NOW,
    POLICY,
    a_build,
    delivered,
    ended,
    failure_unreported,
    finalized,
    pending,
    registered,
    requested,
    stored,
)

TEXT = Path(__file__).parents[2].joinpath("docs", "answers.md").read_text()
CALLS = {
    "TestNod: register": (read_register, partial(of_register, route="shop")),
    "Storage: PUT of a report": (read_put, partial(of_storage, route="shop")),
    "TestNod: upload_failed": (read_upload_failed, partial(of_testnod, route="shop")),
    "TestNod: finalize": (read_finalize, partial(of_testnod, route="shop")),
    "CodeArts: build-info": (read_build_info, of_codearts),
    "CodeArts: record-info": (read_record_info, of_codearts),
    "CodeArts: details of a record": (read_record_details, of_codearts),
    "CodeArts: list of builds": (read_record_list, of_codearts),
    "CodeArts: list of jobs": (read_job_list, of_codearts),
    "CodeArts: upload of a mirrored report": (read_upload, of_mirror),
    "CodeArts Check: refresh": (partial(read_refresh, in_background=False), lambda _: ()),
}
HEALTH = RouteHealth(total_outage_us=0)


def lines():
    """Yield call, answer, outcome and evidence of each line of a call's table."""
    for section in TEXT.split("\n## ")[1:]:
        call, _, rest = section.partition("\n")
        for line in rest.splitlines() if call in CALLS else ():
            if line.startswith("| `"):
                answer, outcome, _, evidence = (cell.strip() for cell in line.strip("|").split(" | "))
                yield call, answer, outcome, evidence.strip("| ")


LINES = list(lines())


def outcome_of(call, written):
    status, *body = re.findall("`([^`]*)`", written)
    read, _ = CALLS[call]
    data = "".join(body).encode()
    return read(HttpResponse(status=int(status), headers={}, body=data, received_at=NOW))


def test_every_call_has_a_table():
    assert {call for call, *_ in LINES} == CALLS.keys()
    assert len(LINES) > 80


@pytest.mark.parametrize(("call", "answer", "outcome", "evidence"), LINES)
def test_an_answer_is_the_outcome_that_the_document_names(call, answer, outcome, evidence):
    came = outcome_of(call, answer)
    _, signals = CALLS[call]
    shown = ", ".join(f"{breaker.partition(':')[0]} {signal}" for breaker, signal, _ in signals(came))

    assert (type(came).__name__, shown or "–") == (outcome, evidence)


@pytest.mark.parametrize(("call", "answer"), [line[:2] for line in LINES if line[0] == "TestNod: register"])
def test_no_answer_to_register_delivers_or_ends_a_report(call, answer):
    build = a_build(pending(), requested())
    after = apply(build, after_register(build, build.registrations[1], outcome_of(call, answer), NOW, POLICY, HEALTH))

    assert after.deliveries[1].state is DeliveryState.PENDING
    assert after.state is BuildState.OPEN


@pytest.mark.parametrize(("call", "answer"), [line[:2] for line in LINES if line[0] == "Storage: PUT of a report"])
def test_only_a_put_that_is_stored_delivers_and_only_a_report_that_is_too_large_is_given_up(call, answer):
    outcome = outcome_of(call, answer)
    build = a_build(pending(), registered())
    after = apply(build, after_put(build, build.registrations[1], outcome, NOW, POLICY, HEALTH))
    too_large = "413" in answer or "EntityTooLarge" in answer
    wanted = (
        DeliveryState.DELIVERED if answer == "`200`" else DeliveryState.DEAD if too_large else DeliveryState.PENDING
    )

    assert (after.deliveries[1].state, isinstance(outcome, Stored)) == (wanted, answer == "`200`")


@pytest.mark.parametrize(("call", "answer"), [line[:2] for line in LINES if line[0] == "TestNod: upload_failed"])
@pytest.mark.parametrize("uncertain", [True, False])
def test_only_an_upload_that_was_processed_and_may_have_been_put_is_delivered_after_all(call, answer, uncertain):
    build = a_build(pending(), failure_unreported(1, put_outcome_unknown=uncertain))
    after = apply(build, after_upload_failed(build, build.registrations[1], outcome_of(call, answer), NOW, POLICY))
    is_delivered = after.deliveries[1].state is DeliveryState.DELIVERED

    assert is_delivered == ("processed" in answer and uncertain)
    assert is_delivered == (after.registrations[1].state is RegistrationState.STORED)


@pytest.mark.parametrize(("call", "answer", "outcome"), [line[:3] for line in LINES if line[0] == "TestNod: finalize"])
def test_only_a_documented_answer_to_finalize_ends_a_run(call, answer, outcome):
    build, confirmed = ended(delivered(), stored()), finalized(delivered(), stored(), confirm_until=NOW + 1)
    came = outcome_of(call, answer)
    after = apply(build, after_finalize(build, came, NOW, POLICY, 0)).state
    still_asked = apply(confirmed, after_confirm(confirmed, came, NOW, POLICY, HEALTH)).confirm_until is not None

    ends = {"RunStatus": BuildState.FINALIZED, "RunMissing": BuildState.NO_RUN, "RunEmpty": BuildState.NO_RUN}
    assert after is ends.get(outcome, BuildState.ENDED)
    assert still_asked == (outcome not in ends or "pending" in answer)


@pytest.mark.parametrize(("call", "answer"), [line[:2] for line in LINES if line[0] == "CodeArts: build-info"])
def test_only_an_answer_that_says_so_ends_a_build(call, answer):
    build = a_build(delivered())
    after = apply(build, after_poll(build, outcome_of(call, answer), NOW, POLICY, 0, requested_at=NOW))

    assert after.state is (BuildState.ENDED if re.search('"building": "?false', answer) else BuildState.OPEN)
