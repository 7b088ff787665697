import pytest

from bridge.app.config_mapping import to_callers
from bridge.server.auth.signatures import SignatureState
from bridge.settings.model import Settings
from tests.fake_clock import FakeClock

SETTINGS = {
    "callers": {"auth": ["open"], "tokens": [{"name": "ci", "token": "canary-ci"}]},
    "admin": {"token": "canary-admin"},
    "webhook": {"secret": ["canary-hook", "canary-newer"]},
}


@pytest.mark.parametrize("secret", ["canary-ci", "canary-admin", "canary-hook", "canary-newer"])
def test_no_secret_of_the_settings_is_taken_for_somebody_elses(secret):
    clock = FakeClock()
    callers = to_callers(Settings.model_validate(SETTINGS), None, clock, signed=SignatureState(clock.now), good={})
    assert callers.is_token_of_bridge(secret)
    assert not callers.is_token_of_bridge("canary")
