import pytest

from bridge.domain.build import (
    BUILD_TRANSITIONS,
    DELIVERY_TRANSITIONS,
    REGISTRATION_TRANSITIONS,
    BuildState,
    DeliveryState,
    RegistrationState,
)
from bridge.domain.changes import (
    AddRegistration,
    AddRun,
    BumpReportSeq,
    DropRegistration,
    SetDelivery,
    SetRegistration,
    apply,
    set_build,
    set_delivery,
    set_registration,
    set_run,
)
from tests.support.builders import NOW, RUN, a_build, dead, pending, registered, requested

B, D, R = BuildState, DeliveryState, RegistrationState


def pairs(states):
    return [(leaves, enters) for leaves in states for enters in states if leaves is not enters]


@pytest.mark.parametrize(("leaves", "enters"), pairs(BuildState))
def test_a_build_changes_its_state_only_as_the_table_lists(leaves, enters):
    listed = {(B.OPEN, B.ENDED), (B.ENDED, B.OPEN), (B.ENDED, B.FINALIZED), (B.ENDED, B.NO_RUN)}
    listed |= {(B.FINALIZED, B.ENDED), (B.NO_RUN, B.ENDED)}
    build = a_build(state=leaves)

    if (leaves, enters) in listed:
        assert apply(build, [set_build(state=enters)]).state is enters
    else:
        with pytest.raises(ValueError, match=f"no transition from {leaves} to {enters}"):
            apply(build, [set_build(state=enters)])


@pytest.mark.parametrize(("leaves", "enters"), pairs(DeliveryState))
def test_a_delivery_changes_its_state_only_as_the_table_lists(leaves, enters):
    listed = {(D.PENDING, D.DELIVERED), (D.PENDING, D.DEAD), (D.DEAD, D.PENDING), (D.DEAD, D.DELIVERED)}
    listed |= {(D.DELIVERED, D.PENDING)}  # in place of a stuck run
    build = a_build(pending(1, state=leaves))
    change = set_delivery(build.deliveries[1], state=enters)

    if (leaves, enters) in listed:
        assert apply(build, [change]).deliveries[1].state is enters
    else:
        with pytest.raises(ValueError, match=f"no transition from {leaves} to {enters}"):
            apply(build, [change])


@pytest.mark.parametrize(("leaves", "enters"), pairs(RegistrationState))
def test_a_registration_changes_its_state_only_as_the_table_lists(leaves, enters):
    listed = {
        (R.REQUESTED, R.REGISTERED),
        (R.REQUESTED, R.FAILURE_UNREPORTED),
        (R.REQUESTED, R.LOST),
        (R.REGISTERED, R.STORED),
        (R.REGISTERED, R.FAILURE_UNREPORTED),
        (R.FAILURE_UNREPORTED, R.FAILED),
        (R.FAILURE_UNREPORTED, R.STORED),
        (R.FAILURE_UNREPORTED, R.LOST),
        (R.LOST, R.FAILURE_UNREPORTED),
    }
    build = a_build(pending(), registered(1, state=leaves))
    change = set_registration(build.registrations[1], state=enters)

    if (leaves, enters) in listed:
        assert apply(build, [change]).registrations[1].state is enters
    else:
        with pytest.raises(ValueError, match=f"no transition from {leaves} to {enters}"):
            apply(build, [change])


@pytest.mark.parametrize(
    ("states", "table"),
    [(B, BUILD_TRANSITIONS), (D, DELIVERY_TRANSITIONS), (R, REGISTRATION_TRANSITIONS)],
    ids=["build", "delivery", "registration"],
)
def test_every_state_has_its_line_in_the_table(states, table):
    assert set(table) == set(states)


def test_staying_in_a_state_is_no_transition():
    build = a_build(pending(), registered())

    changed = apply(build, [set_registration(build.registrations[1], state=R.REGISTERED, attempts=3)])

    assert changed.registrations[1].attempts == 3


def test_a_late_writer_changes_nothing_of_a_delivery_or_registration_that_has_moved_on():
    moved_on = a_build(dead(), registered(1, state=R.STORED))
    late = [
        SetDelivery(1, D.PENDING, set_delivery(pending(), attempts=9).values),
        SetRegistration(1, R.REGISTERED, set_registration(registered(), attempts=9).values),
    ]

    assert apply(moved_on, late) == moved_on


def test_changes_apply_in_order_and_leave_the_value_they_began_with_alone():
    build = a_build(pending(), requested())

    changed = apply(
        build,
        [
            BumpReportSeq(),
            BumpReportSeq(),
            set_build(state=B.ENDED),
            DropRegistration(1),
            AddRegistration(requested(2)),
        ],
    )

    assert (changed.report_seq, changed.state, list(changed.registrations)) == (3, B.ENDED, [2])
    assert (build.report_seq, build.state, list(build.registrations)) == (1, B.OPEN, [1])


def test_a_run_is_added_once_at_the_end():
    build = a_build(pending(), registered())

    changed = apply(build, [AddRun("run-2", "url", NOW), AddRun("run-2", "another", NOW + 1), AddRun("run-1", "", NOW)])

    assert [(run.test_run_id, run.test_run_url) for run in changed.runs] == [
        ("run-1", RUN.test_run_url),
        ("run-2", "url"),
    ]


def test_only_the_run_that_is_meant_changes():
    build = apply(a_build(pending(), registered()), [AddRun("run-2", "url", NOW)])

    changed = apply(build, [set_run(RUN, status="processed", finalized_at=NOW)])

    assert [run.status for run in changed.runs] == ["processed", None]


@pytest.mark.parametrize("change", [set_build(nonsense=1), set_delivery(pending(1), nonsense=1)])
def test_a_change_of_a_field_that_does_not_exist_is_an_error(change):
    with pytest.raises(TypeError, match="nonsense"):
        apply(a_build(pending(1)), [change])


def test_a_changed_build_leaves_the_one_before_as_it_was():
    before = a_build(pending(1))
    after = apply(before, [set_build(state=B.ENDED), set_delivery(pending(1), attempts=7)])
    assert (before.state, before.deliveries[1].attempts) == (B.OPEN, 0)
    assert (after.state, after.deliveries[1].attempts, after.job_id) == (B.ENDED, 7, before.job_id)
