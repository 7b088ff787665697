"""Small builds, registrations and breakers for tests of the core: a test states only what it is about."""

from dataclasses import replace

from bridge.domain.build import (
    Build,
    BuildState,
    Delivery,
    DeliveryState,
    DeliveryTarget,
    EndReason,
    Registration,
    RegistrationState,
    Report,
    Run,
    RunParameters,
    UploadMetadata,
)
from bridge.domain.circuit_breaker import CircuitBreaker, CircuitBreakers
from bridge.domain.code_check.models import CodeCheckRules, CodeCheckState, CodeCheckStatus
from bridge.domain.instants import SECOND
from bridge.domain.policy import Policy
from bridge.domain.routing import Route
from bridge.domain.rows import Rows

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NOW = 1_000_000 * HOUR
TOKEN = 7
ROUTE = "shop"
PARAMETERS = RunParameters(
    route=ROUTE, build_id="codearts-job-1", tags=(), run_url="", branch="main", commit="c0ffee", chosen_at=NOW - HOUR
)
RUN = Run(test_run_id="run-1", test_run_url="https://testnod.test/run-1", opened_at=NOW - HOUR)
POLICY = Policy(
    has_archive=True,
    has_codearts=False,
    routes=(Route(name=ROUTE),),
    poll_initial_delay=5 * SECOND,
    poll_min_interval=5 * SECOND,
    poll_max_interval=60 * SECOND,
    grace_period=10 * SECOND,
    idle_timeout=15 * MINUTE,
    not_found_timeout=10 * MINUTE,
    max_age=24 * HOUR,
    confirm_timeout=1 * HOUR,
    concurrency_per_build=4,
    give_up_after=7 * 24 * HOUR,
    max_finalize_delay=30 * MINUTE,
    retry_initial_delay=1 * SECOND,
    retry_max_delay=10 * MINUTE,
    max_put_duration=5 * MINUTE,
)
RULES = CodeCheckRules(task_id="task", job_id="", limits=(), wait_us=2 * MINUTE, omit_missing=False)
ASKING = replace(POLICY, has_codearts=True)


def pending(delivery_id=1, **values):
    """Return a delivery to TestNod that is owed."""
    given = {"state": DeliveryState.PENDING, "target": DeliveryTarget.TESTNOD, "pending_since": NOW - HOUR, **values}
    return Delivery(id=delivery_id, report_id=delivery_id, **given)


def dead(delivery_id=1, **values):
    return pending(delivery_id, **{"state": DeliveryState.DEAD, "last_error": "it was no use", **values})


def delivered(delivery_id=1, **values):
    return pending(delivery_id, **{"state": DeliveryState.DELIVERED, "delivered_at": NOW - MINUTE, **values})


def requested(registration_id=1, delivery_id=1, **values):
    """Return a registration that was requested under the current lease."""
    given = {"state": RegistrationState.REQUESTED, "requested_at": NOW - MINUTE, "fencing_token": TOKEN, **values}
    return Registration(id=registration_id, delivery_id=delivery_id, **given)


def registered(registration_id=1, delivery_id=1, **values):
    """Return a registration that got ids and a URL under the current lease; the URL lives for four more minutes."""
    ids = {
        "state": RegistrationState.REGISTERED,
        "test_run_id": RUN.test_run_id,
        "upload_id": f"upload-{registration_id}",
        "presigned_url": "https://storage.test/key?X-Amz-Signature=canary",
        "expires_at": NOW + 4 * MINUTE,
        "registered_at": NOW - MINUTE,
    }
    return requested(registration_id, delivery_id, **{**ids, **values})


def failure_unreported(registration_id=1, delivery_id=1, **values):
    return registered(registration_id, delivery_id, **{"state": RegistrationState.FAILURE_UNREPORTED, **values})


def failed(registration_id=1, delivery_id=1, **values):
    return registered(
        registration_id, delivery_id, **{"state": RegistrationState.FAILED, "presigned_url": None, **values}
    )


def stored(registration_id=1, delivery_id=1, **values):
    kept = {"state": RegistrationState.STORED, "presigned_url": None, "stored_at": NOW - MINUTE}
    return registered(registration_id, delivery_id, **{**kept, **values})


def lost(registration_id=1, delivery_id=1, **values):
    return requested(registration_id, delivery_id, **{"state": RegistrationState.LOST, **values})


def waiting(state=CodeCheckStatus.WAITING, **values):
    """Return a CodeArts Check that is due to be asked, and waited for a minute more."""
    return CodeCheckState(state=state, **{"until": NOW + MINUTE, "due_at": NOW - SECOND, **values})


def report(report_id=1, **values):
    given = {"node_id": "default", "caller": "ci", "caller_routes": None, "has_bytes": True, **values}
    return Report(
        id=report_id,
        name=f"{report_id}.xml",
        size=10,
        sent_size=10,
        sent_sha256="",
        accepted_at=NOW - HOUR,
        **given,
    )


def a_build(*things, **values):
    """Return a build with these deliveries, registrations, runs and reports, open unless `values` say otherwise.

    Reports of deliveries are added; a build with registrations is pinned and has a run.
    """
    deliveries = {thing.id: thing for thing in things if isinstance(thing, Delivery)}
    registrations = {thing.id: thing for thing in things if isinstance(thing, Registration)}
    reports = {thing.report_id: report(thing.report_id) for thing in deliveries.values()}
    reports |= {thing.id: thing for thing in things if isinstance(thing, Report)}
    runs = tuple(thing for thing in things if isinstance(thing, Run))
    given = {
        "state": BuildState.OPEN,
        "report_seq": 1,
        "finalized_seq": 0,
        "accepted_at": NOW - 30 * SECOND,
        "last_report_at": NOW - MINUTE,
        "upload_metadata": UploadMetadata(),
        "run_parameters": PARAMETERS if registrations else None,
        "runs": runs or ((RUN,) if registrations else ()),
        **values,
    }
    return Build(
        id=1,
        job_id="job",
        build_no=1,
        fencing_token=TOKEN,
        reports=Rows(reports.values()),
        deliveries=Rows(deliveries.values()),
        registrations=Rows(registrations.values()),
        **given,
    )


def ended(*things, **values):
    """Return a build that ended a minute ago because build-info said so."""
    end = {"ended_at": NOW - MINUTE, "end_reason": EndReason.BUILD_INFO, "finalize_hold_since": NOW - MINUTE}
    return a_build(*things, **{"state": BuildState.ENDED, **end, **values})


def finalized(*things, **values):
    """Return a build whose run was finalized half a minute ago."""
    given = {"state": BuildState.FINALIZED, "finalized_seq": 1, "finalized_at": NOW - 30 * SECOND, **values}
    return ended(*things, **given)


def opened(name, **values):
    """Return a breaker that has been open for a minute; its next probe is a minute away."""
    given = {"failures": 3, "opened_at": NOW - MINUTE, "probe_at": NOW + MINUTE, "reason": "It is away.", **values}
    return CircuitBreaker(name=name, **given)


def breakers(*known, probing=()):
    return replace(CircuitBreakers.of(known), probing=frozenset(probing))
