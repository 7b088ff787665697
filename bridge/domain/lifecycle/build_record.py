"""The record of a build: what each answer about it changes, and what is asked for after record-info.

record-info has no job name and often no commit. If that is wanted, the details of the record are fetched too, or the
list of the job's builds if CodeArts refuses the details.
"""

from dataclasses import replace
from enum import StrEnum
from typing import Any

from bridge.domain import outcomes
from bridge.domain.build import Build, BuildRecord
from bridge.domain.changes import Change, set_build
from bridge.domain.instants import Instant
from bridge.domain.policy import Policy
from bridge.domain.retry import next_attempt_at
from bridge.domain.routing import candidate_routes, choose_route, metadata_mismatch, routing_keys_of, stated_metadata

MAX_DETAIL_ATTEMPTS = 3
"""Calls for details that may fail before reports go out without them, unless they decide the route."""


MAX_MISSING_ATTEMPTS = 3
"""Answers that there is no such build after which one that is complete is no longer asked about: it was deleted, or is
of another CI system. A build that runs may be asked about before CodeArts lists it."""


def is_gone(build: Build) -> bool:
    """Return whether CodeArts has no record of a complete build, and will have none."""
    missing = build.record is None and build.record_missing and build.describe_attempts >= MAX_MISSING_ATTEMPTS
    return missing and build.complete_at is not None


class RecordQuestion(StrEnum):
    """What is asked about the record of a build, in this order; each is a step of its own, at a rate of its own."""

    RECORD_INFO = "record_info"
    DETAILS = "record_details"
    LIST = "record_list"  # of the job's builds, where CodeArts refuses the details


RecordAnswer = outcomes.RecordOutcome | outcomes.DetailsOutcome | outcomes.RecordListOutcome


def next_question(build: Build, *, details_refused: bool) -> RecordQuestion:
    """Return what is asked about the record next; `details_refused` is whether CodeArts lately refused details."""
    if build.record is None or build.record.build_record_id is None:
        return RecordQuestion.RECORD_INFO
    return RecordQuestion.LIST if details_refused else RecordQuestion.DETAILS


def lacks_details(build: Build, policy: Policy) -> bool:
    """Return whether the details of the build's record have something that is wanted and that its record lacks.

    Wanted are commit and branch, and job name and repository if a route that the build may get uses them.
    """
    record = build.record
    if record is None or record.build_record_id is None:
        return False
    routes = candidate_routes(policy.routes, routing_keys_of(build))
    templates = "".join(f"{route.build_id}{route.run_url}" for route in routes)
    return bool(routes) and (
        record.commit is None
        or (record.branch is None and record.tag is None)
        or (record.job_name is None and _decided_by_job_name(build, policy))
        or (record.job_name is None and "{job_name}" in templates)
        or (record.repo_url is None and "{repo_url}" in templates)
    )


def _decided_by_job_name(build: Build, policy: Policy) -> bool:
    return any("*" not in route.job_name for route in candidate_routes(policy.routes, routing_keys_of(build)))


def after_record(
    build: Build, outcome: RecordAnswer, now: Instant, policy: Policy, *, question: RecordQuestion
) -> tuple[Change, ...]:
    """Return what the answer to a question about the record changes."""
    match outcome:
        case outcomes.RecordFetched(record=record, started_at=started_at):
            described = not lacks_details(replace(build, record=record), policy)
            changes = _record_is(build, record, now, policy, described=described)
            return (*changes, set_build(started_at=started_at))
        case outcomes.DetailsFetched(details=details):
            known = build.record or BuildRecord()
            if details.build_no == build.build_no:
                known = _completed(known, details)
            return _record_is(build, known, now, policy, described=True)
        case outcomes.BuildsListed(builds=builds):
            known = build.record or BuildRecord()
            listed = next((each for each in builds if each.build_no == build.build_no), None)
            return _record_is(build, _completed(known, listed) if listed else known, now, policy, described=True)
        case (
            outcomes.NoSuchBuild()
            | outcomes.CredentialsRejected()
            | outcomes.Throttled()
            | outcomes.Rejected()
            | outcomes.NotSent()
            | outcomes.OutcomeUnknown()
        ):
            if question is RecordQuestion.DETAILS and is_refused(outcome):
                return (set_build(describe_due_at=now, last_error=outcome.message),)
            return _not_answered(build, outcome, now, policy)


def is_refused(outcome: RecordAnswer) -> bool:
    """Return whether CodeArts does not serve this call for the bridge, so that another call is worth a try."""
    return isinstance(outcome, outcomes.Rejected) or (
        isinstance(outcome, outcomes.OutcomeUnknown) and outcome.status == 200
    )


def _completed(record: BuildRecord, found: outcomes.RecordDetails | outcomes.ListedBuild) -> BuildRecord:
    return replace(
        record,
        commit=record.commit or found.commit,
        branch=record.branch or (None if record.tag else found.branch),
        job_name=found.job_name if isinstance(found, outcomes.RecordDetails) else record.job_name,
        repo_url=found.repo_url,
    )


def _record_is(
    build: Build, record: BuildRecord, now: Instant, policy: Policy, *, described: bool
) -> tuple[Change, ...]:
    route = choose_route(policy.routes, replace(build, record=record)).route
    stated = stated_metadata(build, route.name) if route else build.upload_metadata
    mismatch = metadata_mismatch(stated, record)
    values: dict[str, Any] = {"record": record, "metadata_mismatch": mismatch, "last_error": None}
    if described:
        values["described_at"] = now
    return (set_build(**values),)


def _not_answered(build: Build, outcome: outcomes.CodeArtsFailure, now: Instant, policy: Policy) -> tuple[Change, ...]:
    attempts = build.describe_attempts + 1
    due_at = next_attempt_at(now, policy, attempts, f"describe/{build.id}", outcome)
    values: dict[str, Any] = {"describe_attempts": attempts, "describe_due_at": due_at}
    if build.record is None:
        values["record_missing"] = isinstance(outcome, outcomes.NoSuchBuild)
    elif isinstance(outcome, outcomes.NoSuchBuild) or is_refused(outcome) or _is_given_up(build, attempts, policy):
        values["described_at"] = now
    return (set_build(**values, last_error=outcome.message),)


def _is_given_up(build: Build, attempts: int, policy: Policy) -> bool:
    """Return whether reports go out without details. If these decide the route, only `record_timeout` ends the wait."""
    return attempts >= MAX_DETAIL_ATTEMPTS and not _decided_by_job_name(build, policy)
