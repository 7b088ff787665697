"""Random builds, faults, kills and unwelcome clients drawn from a seed, after which every invariant holds.

Two short runs, whose seeds were chosen because they have every kind of fault. `make chaos` plays longer ones.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.plan import Options, draw
from tests.chaos.run import play
from tests.support.corpus import Corpus

RUNS = pytest.mark.parametrize(
    "options",
    [
        pytest.param(Options(seed=20260314, seconds=30), id="sqlite"),
        pytest.param(Options(seed=20262616, seconds=20, postgres=True, s3=True, replicas=2), id="postgres-s3"),
    ],
)


@pytest.mark.early
@pytest.mark.timeout(900)
@RUNS
async def test_after_a_run_of_chance_every_invariant_holds(options: Options, corpus: Corpus, tmp_path: Path) -> None:
    asyncio.get_running_loop().set_debug(False)  # the stand-ins answer from it
    outcome = await play(options, corpus, tmp_path)
    print("\n".join(outcome.lines()))  # noqa: T201 -- the seed, what was done, and what of it holds
    assert [sentence for verdict in outcome.verdicts for sentence in verdict.broken] == []


@RUNS
def test_each_run_has_every_kind_of_fault(options: Options, corpus: Corpus) -> None:
    possible = set().union(*(kinds(replace(options, seed=seed, seconds=60), corpus) for seed in range(20)))
    assert kinds(options, corpus) == possible


def kinds(options: Options, corpus: Corpus) -> set[type]:
    return {type(mishap.fault) for mishap in draw(options, corpus).mishaps}
