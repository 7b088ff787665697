import pytest

from bridge.app.config_mapping import routes_of, to_authenticator
from bridge.server.auth.signatures import Lockout
from bridge.settings.model import Settings
from tests.support.fake_clock import FakeClock

SETTINGS = {
    "callers": {"auth": ["open"], "tokens": [{"name": "ci", "token": "canary-ci"}]},
    "admin": {"token": "canary-admin", "viewer_token": ["canary-viewer"]},
    "routes": [{"name": "shop", "project_token": "canary-project"}],
    "webhook": {"secret": ["canary-hook", "canary-newer"]},
}


@pytest.mark.parametrize(
    "secret", ["canary-ci", "canary-admin", "canary-viewer", "canary-hook", "canary-newer", "canary-project"]
)
def test_no_secret_of_the_settings_is_taken_for_a_callers_own(secret):
    clock = FakeClock()
    callers = to_authenticator(
        Settings.model_validate(SETTINGS),
        None,
        clock,
        lockout=Lockout(clock.steady),
        record_use=None,
        iam_verdicts={},
    )
    assert callers.is_token_of_bridge(secret)
    assert not callers.is_token_of_bridge("canary")


def test_a_report_from_the_spool_may_go_to_every_route_of_its_project_token():
    routes = [{"name": name, "project_token": token} for name, token in (("web", "a"), ("docs", "a"), ("pay", "b"))]
    settings = Settings.model_validate({**SETTINGS, "routes": routes})
    assert routes_of(settings, "project:web") == ("web", "docs")
    assert routes_of(settings, "project:gone") == ()
