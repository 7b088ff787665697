"""A run of chance: builds, faults, kills and unwelcome callers drawn from a seed, after which every invariant holds.

Longer ones, other seeds and more gateways by hand: `make chaos`.
"""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.plan import Options
from tests.chaos.run import play
from tests.end_to_end.corpus import Corpus


@pytest.mark.early
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(Options(seed=20260301, seconds=60), id="sqlite"),
        pytest.param(Options(seed=20260302, seconds=20, postgres=True, s3=True, replicas=2), id="postgres-s3"),
    ],
)
async def test_after_a_run_of_chance_every_invariant_holds(options: Options, corpus: Corpus, tmp_path: Path) -> None:
    asyncio.get_running_loop().set_debug(False)  # the stand-ins answer from it
    outcome = await play(options, corpus, tmp_path)
    print("\n".join(outcome.lines()))  # noqa: T201 -- the seed, what was done, and what of it holds
    assert [sentence for verdict in outcome.verdicts for sentence in verdict.broken] == []
