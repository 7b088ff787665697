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
from bridge.domain.outcomes import BuildInfo, CredentialsRejected, NoSuchBuild, Throttled
from bridge.domain.rejections import Rejection
from bridge.domain.why import WhyCase, blocked_now, why

JOB = "a1" * 16
NOW = 1_700_000_000_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
RUN = "https://nod.test/runs/7"
OWED, DELIVERED, DEAD = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.DEAD

PIN = RunParameters(route="shop", build_id="b", tags=(), run_url="", branch=None, commit=None, chosen_at=1)


def build(*states, **values):
    """Return a build with a report in each of `states`."""
    reports, deliveries = {}, {}
    for number, state in enumerate(states, start=1):
        reports[number] = Report(
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
        deliveries[number] = Delivery(
            id=number,
            report_id=number,
            target=DeliveryTarget.TESTNOD,
            state=state,
            pending_since=NOW - 10 * MINUTE,
            due_at=NOW + 30 * SECOND,
        )
    run = Run(test_run_id="run-7", test_run_url=RUN, opened_at=NOW - MINUTE, status="processing")
    defaults = {
        "state": BuildState.OPEN,
        "run_parameters": PIN,
        "runs": (run,) if DELIVERED in states else (),
        "reports": reports,
        "deliveries": deliveries,
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


def refusal(name="bad.xml", at=NOW - 3 * MINUTE, reason="bad.xml: not XML, line 3. Look at what wrote it."):
    return Rejection(id=12, at=at, name=name, reason=reason, code="BRIDGE.REPORT", caller="ci", request_id="r")


def breakers_opened(name, reason="it answers 503"):
    return CircuitBreakers.of(
        [CircuitBreaker(name=name, opened_at=NOW - 2 * MINUTE, reason=reason, probe_at=NOW + 5 * SECOND)]
    )


def ask(of=None, refusals=(), breakers=None, codearts_says=None):
    return why(
        job_id=JOB,
        build_no=17,
        build=of,
        refusals=refusals,
        breakers=breakers or CircuitBreakers(),
        now=NOW,
        codearts_says=codearts_says,
    )


def is_one_sentence(text):
    return text.endswith(".") and not re.search(r"[.!?]\s", text) and "\n" not in text


# -- nothing was accepted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (None, "CodeArts was not asked about it."),
        (BuildInfo(building=True, result=None, region=None), "CodeArts says that it is still running."),
        (BuildInfo(building=False, result="FAILURE", region=None), "it ended with FAILURE – look for the upload"),
        (NoSuchBuild(message="no"), "CodeArts knows no such build – check the job and the number."),
        (
            CredentialsRejected(message="Token is invalid. Renew it."),
            "could not be asked about it: Token is invalid; Renew",
        ),
        (Throttled(message=""), "could not be asked about it: nothing more is known."),
    ],
)
def test_of_a_build_that_was_never_uploaded_codearts_is_quoted(outcome, says):
    told = ask(codearts_says=outcome)
    assert told.case is WhyCase.NEVER_UPLOADED
    assert told.sentence.startswith(f"No report of build 17 of job {JOB} was ever uploaded to the bridge; ")
    assert says in told.sentence
    assert is_one_sentence(told.sentence)


def test_where_codearts_is_away_that_is_why_it_was_not_asked():
    assert "CodeArts has been away for 2 minutes (it answers 503)." in ask(breakers=breakers_opened(CODEARTS)).sentence


def test_a_build_that_was_only_said_to_be_complete_was_never_uploaded():
    assert ask(build(complete_at=NOW)).case is WhyCase.NEVER_UPLOADED


def test_a_refused_file_is_named_with_its_fault_and_its_age():
    told = ask(refusals=[refusal(at=NOW - MINUTE * 60), refusal()])
    assert told.case is WhyCase.REJECTED
    assert told.sentence == (
        f"The bridge refused the file of build 17 of job {JOB} 3 minutes ago: "
        "bad.xml: not XML, line 3; Look at what wrote it; 1 more refusal before it."
    )


def test_a_reason_that_does_not_name_its_file_gets_the_name():
    assert "ago: bad.xml: Too large" in ask(refusals=[refusal(reason="Too large. Split it.")]).sentence


def test_a_refused_file_whose_bytes_are_kept_says_how_it_is_sent_after_all():
    kept = replace(refusal(), kept_until=NOW + MINUTE)
    mend = " – its bytes are kept: mend the cause and send them with POST /api/v1/rejections/12/send."
    assert ask(refusals=[kept]).sentence.endswith(f"Look at what wrote it{mend}")
    assert ask(build(DELIVERED, state=BuildState.FINALIZED), refusals=[kept]).sentence.endswith(mend)
    assert mend not in ask(refusals=[replace(kept, kept_until=None)]).sentence


def test_a_refused_upload_has_no_file_to_name():
    told = ask(refusals=[refusal(name="", reason="node_id is too long. Leave it out.")])
    assert "refused an upload of build 17" in told.sentence
    assert "ago: node_id is too long; Leave it out." in told.sentence


# -- reports were accepted ---------------------------------------------------------------------------------------


def test_what_is_held_says_what_to_mend():
    told = ask(build(OWED, DELIVERED), breakers=breakers_opened(route_breaker("shop"), "Project not found."))
    assert told.case is WhyCase.BLOCKED
    assert told.sentence == (
        f'Build 17 of job {JOB} is held: Route "shop": Project not found; Fix its project_token; '
        "Delivery resumes automatically; 1 of 2 reports is delivered."
    )


def test_what_its_last_visit_found_to_mend_is_said_first():
    assert (
        "No route takes this build; Add one"
        in ask(build(OWED, blocked_reason="No route takes this build. Add one.")).sentence
    )


def test_what_is_stuck_says_why_and_where():
    told = ask(build(DELIVERED, state=BuildState.FINALIZED, stuck_reason="run is pending 60 minutes after finalize"))
    assert told.case is WhyCase.STUCK
    assert f"is stuck at TestNod (run {RUN}): run is pending 60 minutes after finalize" in told.sentence


def test_what_was_given_up_says_which_why_and_how_it_is_sent_again():
    given_up = build(DEAD, OWED, DELIVERED)
    given_up.deliveries[1] = replace(given_up.deliveries[1], last_error="storage answered 413 EntityTooLarge")
    told = ask(given_up, refusals=[refusal()])
    assert told.case is WhyCase.DEAD
    assert told.sentence == (
        f"1 of the 3 reports of build 17 of job {JOB} was given up, namely 1.xml: storage answered 413 EntityTooLarge"
        " – upload the same file again from CI and it is sent again; 1 of 3 reports is delivered, 1 refusal."
    )


def test_a_refused_file_beside_good_ones_is_told_until_it_is_replaced():
    assert ask(build(OWED, DELIVERED), refusals=[refusal()]).case is WhyCase.REJECTED
    assert ask(build(OWED, DELIVERED), refusals=[refusal(name="1.xml", at=NOW - 20 * MINUTE)]).case is WhyCase.PENDING


@pytest.mark.parametrize("state", [BuildState.OPEN, BuildState.ENDED, BuildState.FINALIZED])
def test_once_all_is_delivered_the_run_is_told_before_what_was_refused(state):
    told = ask(build(DELIVERED, state=state), refusals=[refusal(name="", reason="It holds no files. Send some.")])
    assert told.case is (WhyCase.FINALIZED if state is BuildState.FINALIZED else WhyCase.WAITING)
    assert told.sentence.startswith(f"The only report of build 17 of job {JOB} is in the TestNod run {RUN}, which ")
    assert told.sentence.endswith("; 1 later upload was refused 3 minutes ago: It holds no files; Send some.")


@pytest.mark.parametrize(
    ("refusals", "says"),
    [
        ([refusal()], "; 1 later file was refused 3 minutes ago: bad.xml: not XML"),
        ([refusal(at=NOW - 10 * MINUTE)], "; 1 file was refused 10 minutes ago: bad.xml"),  # in the same upload
        ([refusal("a.xml"), refusal()], "; 2 later files were refused, the last 3 minutes ago: bad.xml"),
        ([refusal(at=NOW - 10 * MINUTE), refusal()], "; 2 files were refused, the last 3 minutes ago"),
        ([refusal(), refusal(name="", reason="Empty.")], "; 2 later uploads were refused, the last 3 minutes ago: Em"),
    ],
)
def test_what_was_refused_is_counted_beside_a_run_and_the_last_is_told(refusals, says):
    assert says in ask(build(DELIVERED, state=BuildState.FINALIZED), refusals=refusals).sentence


def test_what_is_owed_says_since_when_and_what_it_waits_for():
    told = ask(build(OWED, OWED, DELIVERED), breakers=breakers_opened(TESTNOD))
    assert told.case is WhyCase.PENDING
    assert told.sentence == (
        f"2 of the 3 reports of build 17 of job {JOB} have been owed to TestNod for 10 minutes: "
        "TestNod has been away for 2 minutes (it answers 503); the next try is in 5 seconds; "
        "1 of 3 reports is delivered."
    )


def test_what_came_just_now_is_owed_for_less_than_a_second():
    owed = build(OWED)
    owed.deliveries[1] = replace(owed.deliveries[1], pending_since=NOW)
    assert "has been owed to TestNod for less than a second: " in ask(owed).sentence


@pytest.mark.parametrize(
    ("of", "ends"),
    [
        (build(OWED, blocked_reason="No route."), "No route; its only report is not delivered."),
        (build(DELIVERED, stuck_reason="It hangs."), "It hangs; its only report is delivered."),
        (build(OWED, OWED, blocked_reason="No route."), "No route; none of its 2 reports is delivered."),
        (build(DELIVERED, DELIVERED, stuck_reason="It hangs."), "It hangs; all its 2 reports are delivered."),
        (build(OWED, DELIVERED, DELIVERED, blocked_reason="No route."), "No route; 2 of 3 reports are delivered."),
        (
            build(OWED, DELIVERED, DEAD, blocked_reason="No route."),
            "No route; 1 of 3 reports is delivered, 1 was given up.",
        ),
        (build(OWED), "the next try is in 30 seconds."),
        (build(DEAD, DEAD), "upload the same files again from CI and they are sent again."),
    ],
)
def test_what_the_case_leaves_open_is_counted(of, ends):
    assert ask(of).sentence.endswith(ends)


def test_what_is_delivered_says_what_its_run_waits_for():
    told = ask(build(DELIVERED, DELIVERED))
    assert told.case is WhyCase.WAITING
    assert told.sentence == (
        f"All 2 reports of build 17 of job {JOB} are in the TestNod run {RUN}, "
        "which is finalized when the build has ended: nobody has said so yet."
    )


def test_what_is_finalized_says_where_it_is_and_how_it_stands():
    told = ask(build(DELIVERED, state=BuildState.FINALIZED, finalized_at=NOW - 3 * MINUTE))
    assert told.case is WhyCase.FINALIZED
    assert told.sentence == (
        f"The only report of build 17 of job {JOB} is in the TestNod run {RUN}, which was finalized 3 minutes ago; "
        "TestNod last called it processing and is asked no more."
    )


def test_older_runs_are_counted():
    older = Run(test_run_id="run-6", test_run_url="https://nod.test/runs/6", opened_at=1)
    finalized = build(DELIVERED, state=BuildState.FINALIZED)
    finalized = replace(finalized, runs=(older, *finalized.runs))
    assert f"{RUN} and 1 older run, which was finalized" in ask(finalized).sentence


def test_a_closed_build_has_no_run():
    assert ask(build(DELIVERED, state=BuildState.NO_RUN)).case is WhyCase.NO_RUN


@pytest.mark.parametrize(
    ("state", "owed", "is_held"),
    [
        (BuildState.OPEN, False, True),
        (BuildState.FINALIZED, False, False),
        (BuildState.FINALIZED, True, True),
        (BuildState.NO_RUN, False, False),
    ],
)
def test_a_suspended_route_holds_only_what_is_unfinished(state, owed, is_held):
    breakers = breakers_opened(route_breaker("shop"))
    assert (blocked_now(None, state, "shop", breakers, owed=owed) is not None) is is_held
    assert blocked_now(None, state, "other", breakers, owed=owed) is None


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
    for number, delivery in list(of.deliveries.items()):
        of.deliveries[number] = replace(delivery, last_error=text)
        of.reports[number] = replace(of.reports[number], name=text)
    refusals = [refusal(name=text, reason=text)] if refused else []
    assert is_one_sentence(ask(of, refusals, breakers_opened(breaker, text), NoSuchBuild(message=text)).sentence)
