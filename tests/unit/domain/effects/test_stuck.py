import pytest

from bridge.domain.changes import apply
from bridge.domain.effects.stuck import failing
from tests.unit.domain.builders import NOW, POLICY, a_build


@pytest.mark.parametrize(("short_by", "stuck"), [(1, False), (0, True)])
def test_a_call_that_fails_for_as_long_as_a_run_is_confirmed_means_that_its_build_is_stuck(short_by, stuck):
    change = failing(NOW - POLICY.confirm_for + short_by, NOW, POLICY, "finalize", "answered 500")

    build = apply(a_build(), [change])

    assert build.last_error == "answered 500"
    assert build.stuck == ("TestNod has been failing finalize: answered 500" if stuck else None)
