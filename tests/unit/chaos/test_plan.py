from dataclasses import replace

import pytest

from bridge.sandbox.faults import CALL_NAMES, read_answer
from tests.chaos.faults import (
    CLOCKS,
    ODD_ANSWERS,
    DatabaseRestart,
    FullDisk,
    OddAnswers,
    StorageAway,
    WrongClock,
    may_come_after,
)
from tests.chaos.plan import (
    BAD_BEGINS,
    BAD_JOB,
    BAD_PLACES,
    GREEDY_JOB,
    HOSTILE_JOB,
    Ending,
    Greed,
    Options,
    Plan,
    Slow,
    draw,
)
from tests.support.corpus import read_corpus

CORPUS = read_corpus()
ONE = Options(seed=7, seconds=60)
MANY = Options(seed=7, seconds=60, postgres=True, s3=True, replicas=3)
SEEDS = range(40)


def kinds(plan: Plan) -> set[type]:
    return {type(mishap.fault) for mishap in plan.mishaps}


def test_the_same_seed_is_the_same_run_and_another_one_is_another():
    assert draw(ONE, CORPUS) == draw(ONE, CORPUS)
    assert draw(ONE, CORPUS) != draw(replace(ONE, seed=8), CORPUS)


@pytest.mark.parametrize("options", [ONE, MANY])
def test_nothing_begins_or_lasts_beyond_the_run(options):
    plan = draw(options, CORPUS)
    assert all(play.at_seconds < options.seconds for play in plan.plays)
    assert all(mishap.at_seconds + mishap.lasts_seconds <= options.seconds for mishap in plan.mishaps)
    assert {mishap.replica for mishap in plan.mishaps} == set(range(options.replicas))
    assert all(act.at_seconds < options.seconds for act in (*plan.pests, *plan.greedy_acts, *plan.greedy_plays))
    assert plan.bad.play.at_seconds <= options.seconds * BAD_BEGINS


def test_each_form_has_the_faults_of_what_it_keeps_things_in():
    alone = set().union(*(kinds(draw(replace(ONE, seed=seed), CORPUS)) for seed in SEEDS))
    shared = set().union(*(kinds(draw(replace(MANY, seed=seed), CORPUS)) for seed in SEEDS))
    assert alone - shared == {FullDisk}
    assert shared - alone == {DatabaseRestart, StorageAway}


def test_builds_end_in_every_way_and_are_sent_again():
    plays = draw(ONE, CORPUS).plays
    assert {play.ending for play in plays} == set(Ending)
    assert any(play.repeats for play in plays)
    assert len({play.build.key for play in plays}) == len(plays)


def test_every_kind_of_mischief_is_drawn():
    odd, after, clocks, slow, greed, bad = (set() for _ in range(6))
    for plan in (draw(replace(ONE, seed=seed), CORPUS) for seed in SEEDS):  # a plan has megabytes
        faults = [mishap.fault for mishap in plan.mishaps]
        odd |= {(fault.place, fault.what) for fault in faults if isinstance(fault, OddAnswers)}
        after |= {(fault.place, fault.what) for fault in faults if isinstance(fault, OddAnswers) and fault.after}
        clocks |= {(fault.ahead_seconds, fault.restarts) for fault in faults if isinstance(fault, WrongClock)}
        slow |= {(pest.slow, pest.stalls, pest.in_body) for pest in plan.pests if pest.slow}
        greed |= {act.what for act in plan.greedy_acts}
        bad.add(plan.bad.place)
    assert odd == {(place, what) for place, answers in ODD_ANSWERS.items() for what in answers}
    assert {place for place, _ in after} == {place for place in ODD_ANSWERS if place.startswith("testnod.")}
    assert all(may_come_after(*each) for each in after)
    assert clocks == {(ahead, restarts) for ahead in CLOCKS for restarts in (True, False)}
    assert len(slow) == len(Slow) * 4
    assert greed == set(Greed)
    assert bad == set(BAD_PLACES)


def test_odd_answers_are_answers_that_a_stand_in_can_give():
    assert set(ODD_ANSWERS) <= set(CALL_NAMES)
    for answers in ODD_ANSWERS.values():
        for answer in answers.values():
            read_answer(answer)


def test_no_answer_that_rejects_a_register_or_a_report_comes_after_its_work():
    assert may_come_after("testnod.register", "a huge page")  # 502: of a proxy that waited for TestNod's answer
    assert may_come_after("testnod.upload_failed", "a redirect")  # called again, whatever it means
    for place, what in (
        ("testnod.register", "404 with a page"),
        ("testnod.register", "a redirect"),
        ("s3.put", "a huge page"),
    ):
        assert not may_come_after(place, what)


@pytest.mark.parametrize("options", [ONE, MANY])
def test_the_bad_build_the_greedy_ones_and_the_honest_ones_are_apart(options):
    plan = draw(options, CORPUS)
    honest = {play.build.job_id for play in plan.plays}
    assert not any(play.greedy for play in plan.plays)
    assert {play.build.job_id for play in plan.greedy_plays} == {GREEDY_JOB}
    assert plan.bad.play.build.job_id == BAD_JOB
    assert honest.isdisjoint({GREEDY_JOB, BAD_JOB})
    assert {act.build.job_id for act in plan.greedy_acts} <= {HOSTILE_JOB, *honest}


def test_greed_is_bounded():
    plan = draw(ONE, CORPUS)
    assert len(plan.greedy_acts) <= ONE.seconds / 2
    assert len(plan.greedy_plays) <= ONE.seconds / 10
    assert all(
        len(body) < 2 * 1024 * 1024 for play in plan.greedy_plays for up in play.build.uploads for _, body in up.files
    )
