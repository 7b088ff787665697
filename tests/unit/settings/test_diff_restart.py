import pytest

from bridge.errors import SettingsError
from bridge.settings import apply_without_restart
from tests.unit.settings.conftest import LOOPBACK, ROUTE

CI = '[[callers.tokens]]\nname = "ci"\ntoken = "canary-1"\n'


def test_what_needs_no_restart_is_taken_as_it_is(loads):
    running, wanted = loads(LOOPBACK + ROUTE), loads(LOOPBACK + '[polling]\ngrace_period = "1m"\n' + ROUTE)
    assert apply_without_restart(running, wanted) == (wanted, {})


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ('[store]\nretention = "1d"\n', "store.retention"),
        ("[admin]\nport = 9\n", "admin.port"),
        ('[outbound]\nno_proxy = ["a"]\n', "outbound.no_proxy"),
        ('[s3]\nregion = "x"\n', "s3.region"),
        ("[testnod]\nallow_private_storage = true\n", "testnod.allow_private_storage"),
    ],
)
def test_what_needs_one_stays_as_it_is_and_is_said_while_the_rest_is_taken(loads, tables, key):
    running = loads(LOOPBACK + ROUTE)
    settings, put_off = apply_without_restart(
        running, loads(LOOPBACK + tables + '[polling]\ngrace_period = "1m"\n' + ROUTE)
    )
    assert list(put_off) == [key]
    assert settings.polling.grace_period.total_seconds() == 60
    assert apply_without_restart(running, settings) == (settings, {})
    assert (settings.store, settings.admin, settings.outbound, settings.s3, settings.testnod) == (
        running.store,
        running.admin,
        running.outbound,
        running.s3,
        running.testnod,
    )


def test_nothing_is_taken_that_is_safe_only_after_a_restart(loads):
    running = loads("[server]\nbehind_tls_proxy = true\n" + CI + ROUTE)  # listens to everybody, and asks for tokens
    with pytest.raises(SettingsError) as refused:
        apply_without_restart(running, loads(LOOPBACK + ROUTE))  # asks nobody, on an address that it does not have yet
    open_to_all, restart = refused.value.complaints
    assert open_to_all.startswith("callers.auth: is open, and anybody who reaches server.host could upload.")
    assert restart == "server.host: as it is now does not go with this. Restart to have all of it."
