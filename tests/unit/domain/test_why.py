import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.build import (
    Build,
    BuildState,
    Delivery,
    DeliveryState,
    DeliveryTarget,
    EndReason,
    Report,
    Run,
    RunParameters,
    UploadMetadata,
)
from bridge.domain.circuit_breaker import (
    CODEARTS,
    TESTNOD,
    CircuitBreaker,
    CircuitBreakers,
    route_breaker,
    storage_breaker,
)
from bridge.domain.intake import Rejection
from bridge.domain.outcomes import BuildInfo, CredentialsRejected, NoSuchBuild, Throttled
from bridge.domain.rows import Rows
from bridge.domain.why import WhyCase, blocked_now, why

JOB = "a1" * 16
NOW = 1_700_000_000_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
RUN = "https://nod.test/runs/7"
OWED, DELIVERED, DEAD = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.DEAD

PARAMETERS = RunParameters(route="shop", build_id="b", tags=(), run_url="", branch=None, commit=None, chosen_at=1)


def build(*states, **values):
    """Return a build with a report in each of `states`."""
    reports, deliveries = [], []
    for number, state in enumerate(states, start=1):
        report = Report(
            id=number,
            name=f"{number}.xml",
            node_id="default",
            size=1,
            sent_size=1,
            sent_sha256="",
            accepted_at=NOW - 10 * MINUTE,
            caller="ci",
            caller_routes=None,
            has_bytes=True,
        )
        delivery = Delivery(
            id=number,
            report_id=number,
            target=DeliveryTarget.TESTNOD,
            state=state,
            pending_since=NOW - 10 * MINUTE,
            due_at=NOW + 30 * SECOND,
        )
        reports.append(report)
        deliveries.append(delivery)
    run = Run(test_run_id="run-7", test_run_url=RUN, opened_at=NOW - MINUTE, status="processing")
    defaults = {
        "state": BuildState.OPEN,
        "run_parameters": PARAMETERS,
        "runs": (run,) if DELIVERED in states else (),
        "reports": Rows(reports),
        "deliveries": Rows(deliveries),
    }
    return Build(
        id=1,
        job_id=JOB,
        build_no=17,
        fencing_token=1,
        report_seq=1,
        finalized_seq=0,
        accepted_at=NOW - 10 * MINUTE,
        last_report_at=NOW - 10 * MINUTE,
        upload_metadata=UploadMetadata(),
        **{**defaults, **values},
    )


def with_delivery(of, delivery_id, **values):
    return replace(of, deliveries=of.deliveries.with_rows([replace(of.deliveries[delivery_id], **values)]))


def rejection(name="bad.xml", at=NOW - 3 * MINUTE, reason="bad.xml: not XML, line 3. Look at what wrote it."):
    return Rejection(id=12, rejected_at=at, name=name, reason=reason, code="BRIDGE.REPORT", caller="ci", request_id="r")


def breakers_opened(name, reason="it answers 503"):
    return CircuitBreakers.of(
        [CircuitBreaker(name=name, opened_at=NOW - 2 * MINUTE, reason=reason, probe_at=NOW + 5 * SECOND)]
    )


def ask(of=None, rejections=(), breakers=None, polled=None):
    return why(
        job_id=JOB,
        build_no=17,
        build=of,
        rejections=rejections,
        breakers=breakers or CircuitBreakers(),
        now=NOW,
        polled=polled,
        send_command="send {id}",
    )


def is_one_sentence(text):
    return text.endswith(".") and not re.search(r"[.!?]\s", text) and "\n" not in text


# -- nothing was accepted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (None, "CodeArts was not asked about it; look for the upload in the log of the build."),
        (BuildInfo(building=True, result=None, region=None), "the build is still running; wait for its upload step."),
        (BuildInfo(building=False, result="FAILURE", region=None), "the build ended with FAILURE; look for the upload"),
        (NoSuchBuild(message="no"), "CodeArts has no such build; check the job and the number."),
        (
            CredentialsRejected(message="Token is invalid. Renew it."),
            "could not be asked about it (Token is invalid; Renew it)",
        ),
        (Throttled(message=""), "could not be asked about it (nothing more is known)"),
    ],
)
def test_of_a_build_that_was_never_uploaded_codearts_is_quoted(outcome, says):
    told = ask(polled=outcome)
    assert told.case is WhyCase.NEVER_UPLOADED
    assert told.sentence.startswith(f"No report of build 17 of job {JOB} was ever uploaded to the bridge: ")
    assert says in told.sentence
    assert is_one_sentence(told.sentence)


# -- CodeArts' result and the reports ----------------------------------------------------------------------------


def with_counts(of, **counts):
    return replace(of, reports=Rows(replace(each, **counts) for each in of.reports.values()))


def finalized_with(result, **counts):
    ended = {"state": BuildState.FINALIZED, "finalized_at": NOW - MINUTE, "build_result": result}
    return with_counts(build(DELIVERED, **ended), **counts)


def test_a_red_build_with_green_reports_is_to_be_looked_at():
    told = ask(finalized_with("FAILURE", tests=9))
    assert told.result_mismatch.startswith("CodeArts says FAILURE, but none of the 9 tests in 1 report failed. ")
    assert told.cause.endswith("; CodeArts says FAILURE, but none of the 9 tests in 1 report failed")
    assert told.action.startswith("look at the build log: the test run may have crashed")
    assert is_one_sentence(told.sentence)


def test_a_green_build_with_red_reports_is_to_be_looked_at():
    told = ask(finalized_with("SUCCESS", tests=9, failures=2))
    assert "CodeArts says SUCCESS, but 2 of 9 tests failed" in told.cause
    assert told.action == "look at the build step: it may ignore the exit code of the tests"


def test_a_result_that_agrees_is_not_mentioned():
    told = ask(finalized_with("SUCCESS", tests=9))
    assert (told.result_mismatch, told.action) == (None, "no action is needed")


def test_a_mismatch_takes_the_place_of_no_other_advice():
    told = ask(with_counts(build(DEAD, build_result="FAILURE"), tests=9))
    assert "CodeArts says FAILURE, but none of the 9 tests in 1 report failed; look at" in told.cause
    assert told.action.startswith("remove the cause")
    assert is_one_sentence(told.sentence)


def test_a_build_that_had_only_rejections_is_compared_with_what_codearts_answers_now():
    told = ask(rejections=[rejection()], polled=BuildInfo(building=False, result="FAILURE", region=None))
    assert told.case is WhyCase.REJECTED
    assert "CodeArts says FAILURE, and no report was accepted (1 file was rejected)" in told.cause
    running = ask(rejections=[rejection()], polled=BuildInfo(building=True, result="FAILURE", region=None))
    assert running.result_mismatch is None


def test_a_build_without_reports_has_its_result_of_the_ledger_if_codearts_is_not_asked():
    assert "CodeArts says ABORTED, and no report was accepted" in ask(build(build_result="ABORTED")).cause


def test_a_run_that_waits_for_the_result_of_codearts_is_explained():
    ended = {"state": BuildState.ENDED, "end_reason": EndReason.CALLER, "ended_at": NOW - MINUTE}
    cause = ask(build(DELIVERED, **ended, polled_at=NOW - 5 * SECOND)).cause
    assert "the run is finalized when CodeArts has the result of the build, CodeArts was asked 5 seconds ago" in cause


def test_where_codearts_is_away_that_is_why_it_was_not_asked():
    assert (
        "CodeArts has been away for 2 minutes (it answers 503); look"
        in ask(breakers=breakers_opened(CODEARTS)).sentence
    )


def test_a_build_that_was_only_said_to_be_complete_was_never_uploaded():
    assert ask(build(complete_at=NOW)).case is WhyCase.NEVER_UPLOADED


def test_a_rejected_file_is_named_with_its_fault_and_its_age():
    told = ask(rejections=[rejection()])
    assert told.case is WhyCase.REJECTED
    assert told.sentence == (
        f"The bridge rejected the file of build 17 of job {JOB} 3 minutes ago: "
        "bad.xml: not XML, line 3; look at what wrote it."
    )


def test_the_files_of_one_upload_are_counted_together():
    files = [rejection(f"{number}.xml", reason=f"{number}.xml: not XML. Look.") for number in range(60)]
    told = ask(rejections=files)
    assert told.status == f"The bridge rejected 60 files of one upload for build 17 of job {JOB} 3 minutes ago"
    assert (told.cause, told.action) == (
        "the first of them is 0.xml: not XML",
        "look; /api/v1/rejections lists the others",
    )
    assert ask(rejections=files * 2).status.startswith("The bridge rejected at least 120 files")


def test_rejected_uploads_are_counted_and_the_last_one_is_explained():
    token = replace(rejection("", at=NOW - MINUTE, reason="The token expired. Renew it."), request_id="s", caller="")
    told = ask(rejections=[rejection(at=NOW - 60 * MINUTE), token])
    assert told.sentence == (
        f"2 uploads for build 17 of job {JOB} were rejected, the last one 1 minute ago: The token expired; renew it."
    )


def test_strangers_cannot_change_what_a_pending_build_waits_for():
    stranger = replace(rejection("", reason="No caller has this token. Check it."), caller="")
    told = ask(build(OWED), rejections=[stranger])
    assert told.case is WhyCase.PENDING
    assert "(1 rejection)" in told.status


def test_a_reason_that_does_not_name_its_file_gets_the_name():
    assert "ago: bad.xml: Too large; split it." in ask(rejections=[rejection(reason="Too large. Split it.")]).sentence


def test_the_action_for_a_quarantined_file_is_to_send_it():
    kept = replace(rejection(), kept_until=NOW + MINUTE)
    send = "remove the cause and run `send 12` to send the quarantined file"
    assert ask(rejections=[kept]).action.endswith(send)
    assert send in ask(build(DELIVERED, state=BuildState.FINALIZED), rejections=[kept]).cause
    assert send not in ask(rejections=[replace(kept, kept_until=None)]).sentence


def test_a_rejected_upload_has_no_file_to_name():
    told = ask(rejections=[rejection(name="", reason="node_id is too long. Leave it out.")])
    assert "rejected an upload of build 17" in told.sentence
    assert "ago: node_id is too long; leave it out." in told.sentence


# -- reports were accepted ---------------------------------------------------------------------------------------


def test_what_is_blocked_states_what_to_correct():
    told = ask(build(OWED, DELIVERED), breakers=breakers_opened(route_breaker("shop"), "Project not found."))
    assert told.case is WhyCase.BLOCKED
    assert told.sentence == (
        f'Build 17 of job {JOB} is blocked (1 of 2 reports is delivered): Route "shop": Project not found; '
        "fix its project_token; Delivery resumes automatically."
    )


def test_what_the_last_reconcile_found_to_correct_is_stated_first():
    assert (
        "No route takes this build; add one"
        in ask(build(OWED, blocked_reason="No route takes this build. Add one.")).sentence
    )


def test_what_is_stuck_says_why_and_where():
    told = ask(build(DELIVERED, state=BuildState.FINALIZED, stuck_reason="run is pending 60 minutes after finalize"))
    assert told.case is WhyCase.STUCK
    assert told.status.endswith(f"is stuck at TestNod in run {RUN} (its only report is delivered)")
    assert told.cause == "run is pending 60 minutes after finalize"


def test_what_was_given_up_says_which_why_and_how_it_is_sent_again():
    given_up = with_delivery(build(DEAD, OWED, DELIVERED), 1, last_error="storage answered 413 EntityTooLarge")
    told = ask(given_up, rejections=[rejection()])
    assert told.case is WhyCase.DEAD
    assert told.sentence == (
        f"1 of the 3 reports of build 17 of job {JOB} was given up (1 of 3 reports is delivered, 1 rejection): "
        "1.xml, storage answered 413 EntityTooLarge; remove the cause, then upload the same file again from CI."
    )


def test_a_rejected_file_beside_good_ones_is_the_case_until_it_is_replaced():
    assert ask(build(OWED, DELIVERED), rejections=[rejection()]).case is WhyCase.REJECTED
    assert (
        ask(build(OWED, DELIVERED), rejections=[rejection(name="1.xml", at=NOW - 20 * MINUTE)]).case is WhyCase.PENDING
    )


@pytest.mark.parametrize("state", [BuildState.OPEN, BuildState.ENDED, BuildState.FINALIZED])
def test_once_all_is_delivered_the_run_precedes_what_was_rejected(state):
    told = ask(build(DELIVERED, state=state), rejections=[rejection(name="", reason="It holds no files. Send some.")])
    assert told.case is (WhyCase.FINALIZED if state is BuildState.FINALIZED else WhyCase.WAITING)
    assert told.sentence.startswith(f"The only report of build 17 of job {JOB} is in the TestNod run {RUN}")
    assert told.cause.endswith("; 1 later upload was rejected 3 minutes ago (It holds no files; send some)")


@pytest.mark.parametrize(
    ("rejections", "says"),
    [
        ([rejection()], "; 1 later file was rejected 3 minutes ago (bad.xml: not XML"),
        ([rejection(at=NOW - 10 * MINUTE)], "; 1 file was rejected 10 minutes ago (bad.xml"),  # in the same upload
        ([rejection("a.xml"), rejection()], "; 2 later files were rejected, the last 3 minutes ago (bad.xml"),
        ([rejection(at=NOW - 10 * MINUTE), rejection()], "; 2 files were rejected, the last 3 minutes ago"),
        (
            [rejection(), rejection(name="", reason="Empty.")],
            "; 2 later uploads were rejected, the last 3 minutes ago (Em",
        ),
    ],
)
def test_what_was_rejected_is_counted_beside_a_run_with_the_last_one(rejections, says):
    assert says in ask(build(DELIVERED, state=BuildState.FINALIZED), rejections=rejections).sentence


def test_what_is_pending_says_since_when_and_what_it_waits_for():
    told = ask(build(OWED, OWED, DELIVERED), breakers=breakers_opened(TESTNOD))
    assert told.case is WhyCase.PENDING
    assert told.sentence == (
        f"2 of the 3 reports of build 17 of job {JOB} have been pending for 10 minutes (1 of 3 reports is delivered): "
        "TestNod has been away for 2 minutes (it answers 503); the next attempt is in 5 seconds."
    )


def test_what_came_just_now_is_pending_for_less_than_a_second():
    pending = with_delivery(build(OWED), 1, pending_since=NOW)
    assert "has been pending for less than a second: " in ask(pending).sentence


@pytest.mark.parametrize(
    ("of", "ends"),
    [
        (build(OWED, blocked_reason="No route."), "is blocked (its only report is not delivered)"),
        (build(DELIVERED, stuck_reason="It hangs."), "(its only report is delivered)"),
        (build(OWED, OWED, blocked_reason="No route."), "is blocked (none of its 2 reports is delivered)"),
        (build(DELIVERED, DELIVERED, stuck_reason="It hangs."), "(all its 2 reports are delivered)"),
        (build(OWED, DELIVERED, DELIVERED, blocked_reason="No route."), "is blocked (2 of 3 reports are delivered)"),
        (build(OWED, DELIVERED, DEAD, blocked_reason="No."), "(1 of 3 reports is delivered, 1 was given up)"),
        (build(OWED), "has been pending for 10 minutes"),
        (build(DEAD, DEAD), "were given up"),
    ],
)
def test_what_the_case_leaves_open_is_counted(of, ends):
    assert ask(of).status.endswith(ends)


def test_what_is_delivered_says_what_its_run_waits_for():
    told = ask(build(DELIVERED, DELIVERED))
    assert told.case is WhyCase.WAITING
    assert told.sentence == (
        f"All 2 reports of build 17 of job {JOB} are in the TestNod run {RUN}: "
        "the run is finalized when the build has ended, no end has been reported yet; no action is needed."
    )


def test_what_is_finalized_says_where_it_is_and_how_it_stands():
    told = ask(build(DELIVERED, state=BuildState.FINALIZED, finalized_at=NOW - 3 * MINUTE))
    assert told.case is WhyCase.FINALIZED
    assert told.sentence == (
        f"The only report of build 17 of job {JOB} is in the TestNod run {RUN}, which was finalized 3 minutes ago: "
        "TestNod last called it processing; no action is needed."
    )


def test_older_runs_are_counted():
    older = Run(test_run_id="run-6", test_run_url="https://nod.test/runs/6", opened_at=1)
    finalized = build(DELIVERED, state=BuildState.FINALIZED)
    finalized = replace(finalized, runs=(older, *finalized.runs))
    assert f"{RUN} and 1 older run, which was finalized" in ask(finalized).sentence


def test_a_replaced_run_is_named_with_the_build_id_that_counts():
    older = Run(test_run_id="run-6", test_run_url="https://nod.test/runs/6", opened_at=1, status="pending")
    second = replace(PARAMETERS, build_id="b.2", generation=2)
    of = build(DELIVERED, state=BuildState.FINALIZED, run_parameters=second)
    newest = replace(of.runs[-1], generation=2)

    told = ask(replace(of, runs=(newest, older)))

    assert told.status.startswith(f"The only report of build 17 of job {JOB} is in the TestNod run {RUN}, which")
    assert told.cause.endswith(
        "; a lost registration holds run https://nod.test/runs/6 in pending, so the build was sent again with build_id "
        "b.2, and only the run of that build_id counts"
    )


def test_a_build_without_a_run_is_no_run():
    assert ask(build(DELIVERED, state=BuildState.NO_RUN)).case is WhyCase.NO_RUN


@pytest.mark.parametrize(
    ("state", "case"),
    [
        (BuildState.OPEN, WhyCase.WAITING),
        (BuildState.ENDED, WhyCase.WAITING),
        (BuildState.FINALIZED, WhyCase.FINALIZED),
        (BuildState.NO_RUN, WhyCase.NO_RUN),
    ],
)
def test_of_reports_that_were_taken_as_delivered_the_run_is_not_known(state, case):
    told = ask(build(DELIVERED, state=state, runs=()))
    assert told.case is case
    assert told.sentence == (
        f"The only report of build 17 of job {JOB} is delivered: this was assumed after a restore, "
        "so the bridge does not know the run; look for the build in TestNod."
    )


@pytest.mark.parametrize(
    ("state", "pending", "is_blocked"),
    [
        (BuildState.OPEN, False, True),
        (BuildState.FINALIZED, False, False),
        (BuildState.FINALIZED, True, True),
        (BuildState.NO_RUN, False, False),
    ],
)
def test_a_blocked_route_blocks_only_what_is_unfinished(state, pending, is_blocked):
    breakers = breakers_opened(route_breaker("shop"))
    assert (blocked_now(None, state, "shop", breakers, pending=pending) is not None) is is_blocked
    assert blocked_now(None, state, "other", breakers, pending=pending) is None


foreign = st.text(alphabet='ab.!?。\n "', max_size=60)


@given(
    states=st.lists(st.sampled_from(DeliveryState), max_size=4),
    state=st.sampled_from(BuildState),
    text=foreign,
    blocked_reason=st.none() | foreign,
    stuck_reason=st.none() | foreign,
    refused=st.booleans(),
    breaker=st.sampled_from([TESTNOD, CODEARTS, route_breaker("shop"), storage_breaker("shop")]),
)
def test_whatever_is_known_it_is_one_sentence(states, state, text, blocked_reason, stuck_reason, refused, breaker):
    of = build(
        *states,
        state=state,
        blocked_reason=blocked_reason,
        stuck_reason=stuck_reason,
        last_error=text,
        build_result=text,
    )
    of = replace(
        of,
        reports=Rows(replace(each, name=text) for each in of.reports.values()),
        deliveries=Rows(replace(each, last_error=text) for each in of.deliveries.values()),
    )
    rejections = [rejection(name=text, reason=text)] if refused else []
    assert is_one_sentence(ask(of, rejections, breakers_opened(breaker, text), NoSuchBuild(message=text)).sentence)
