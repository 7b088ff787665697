"""Whole lives of builds: whatever goes wrong, nothing is lost, doubled, stranded or left pending in silence."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.domain.build import BuildState, DeliveryState
from bridge.domain.instants import SECOND
from tests.support.builders import HOUR, MINUTE, POLICY
from tests.support.model.life import Luck, World

policies = st.builds(
    lambda asks, concurrency_per_build, hold, give_up: replace(
        POLICY,
        has_codearts=asks,
        concurrency_per_build=concurrency_per_build,
        max_finalize_delay=hold,
        give_up_after=give_up,
    ),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([20 * SECOND, 30 * MINUTE]),
    st.sampled_from([5 * MINUTE, POLICY.give_up_after]),
)
url_lives = st.sampled_from([20 * SECOND, 5 * MINUTE])
moments = st.sampled_from([0, SECOND, MINUTE, 16 * MINUTE, HOUR, 30 * HOUR])
arrivals = st.lists(st.tuples(moments, st.sampled_from(["report", "again", "complete", "look"])), max_size=6)


@settings(derandomize=False, deadline=None, max_examples=600)
@given(luck=st.binary(min_size=60, max_size=400), policy=policies, url_lives=url_lives, arrivals=arrivals, ends=moments)
def test_whatever_goes_wrong_every_report_arrives_once_and_every_run_is_finalized(
    luck, policy, url_lives, arrivals, ends
):
    world = World(Luck(luck), policy, url_lives=url_lives)
    world.ends_at += ends
    happen = {"report": world.arrive, "again": world.arrive_again, "complete": world.complete, "look": world.look}
    world.arrive()
    for after, what in arrivals:
        world.later(after, happen[what])

    world.live()
    world.luck.run_out()
    world.arrive_again()
    world.live()

    build, testnod = world.ledger, world.testnod
    assert {delivery.state for delivery in build.deliveries.values()} == {DeliveryState.DELIVERED}
    assert (build.state, build.unsettled(), build.finalized_seq) == (BuildState.FINALIZED, [], build.report_seq)
    assert len(testnod.uploads) <= len(build.deliveries) + world.mishaps
    known = {life.upload_id for life in build.registrations.values() if life.upload_id}
    excused = bool(world.refused_failures)
    testnod.check_pending(known, build.run_parameters.build_id, stuck=build.stuck_reason, excused=excused)
