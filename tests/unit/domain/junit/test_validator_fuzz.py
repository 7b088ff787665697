"""Some seconds of fuzzing with a fixed seed; `make fuzz` goes on with others."""

import pytest

from tests.fuzz_validator import run_batch

SEED = 20_260_101
CASES = 1000


@pytest.mark.property
@pytest.mark.parametrize("first", [0, CASES])
def test_whatever_the_bytes_there_is_a_verdict(first):
    batch = run_batch(SEED, first, CASES)

    assert not batch.fault, batch.fault
    assert batch.outcomes.total() == CASES
    assert min(batch.outcomes[reason] for reason in ("accepted", "truncated", "encoding", "entities", "not_xml")) > 10
