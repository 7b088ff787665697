from dataclasses import replace

import pytest

from tests.chaos.faults import DatabaseRestart, FullDisk, StorageAway
from tests.chaos.plan import Ending, Options, Plan, draw
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
