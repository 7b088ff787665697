import pytest

from bridge.errors import SettingsError
from bridge.settings import apply_without_restart, diff
from tests.unit.settings.conftest import LOOPBACK, ROUTE

TOKEN = '[[callers.tokens]]\nname = "{}"\ntoken = "{}"\n'
CI = TOKEN.format("ci", "canary-1")
WEB = '[[routes]]\nname = "web"\nproject_token = "tok-shop"\nbranch = "main"\n'


def base(tables=""):
    return LOOPBACK + tables + ROUTE


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (base(), base(), {}),
        (base(), base('[polling]\ngrace_period = "1m"\n'), {"polling.grace_period": "10s → 1m"}),
        (base(), base('[store]\nmin_free_space = "2 GiB"\n'), {"store.min_free_space": "1 GiB → 2 GiB"}),
        (base(CI), base(TOKEN.format("ci", "canary-2")), {"callers.tokens.ci.token": "changed"}),
        (base(CI), base(CI + TOKEN.format("new", "canary-2")), {"callers.tokens[]": "['ci'] → ['ci', 'new']"}),
        (base(CI), base(), {"callers.tokens[]": "['ci'] → []"}),
        (base(), base().replace("tok-shop", "canary-3"), {"routes.shop.project_token": "changed"}),
        (base(WEB), base() + WEB, {"routes[]": "['web', 'shop'] → ['shop', 'web']"}),
        (base(WEB), base(WEB.replace("main", "dev")), {"routes.web.branch": "['main'] → ['dev']"}),
        (
            base('[outbound]\nhttp_proxy = "http://u:canary-4@p:1"\n[testnod]\nstorage_hosts = ["s"]\n'),
            base('[outbound]\nhttp_proxy = "http://u:canary-5@p:1"\n[testnod]\nstorage_hosts = ["s"]\n'),
            {"outbound.http_proxy": "changed"},
        ),
        (
            base('[store]\nurl = "postgresql://u:canary-6@h/d"\n'),
            base('[store]\nurl = "postgresql://u:canary-7@h/d"\n'),
            {"store.url": "changed"},
        ),
    ],
)
def test_differences_are_reported_by_key_without_secrets(loads, before, after, expected):
    found = diff(loads(before), loads(after))
    assert found == expected
    assert "canary" not in repr(found)


def test_what_needs_no_restart_is_applied(loads):
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
def test_what_needs_a_restart_is_reported_and_the_rest_is_applied(loads, tables, key):
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


def test_a_mixture_that_breaks_a_rule_is_rejected(loads):
    running = loads("[server]\nbehind_tls_proxy = true\n" + CI + ROUTE)  # listens to everybody, and asks for tokens
    with pytest.raises(SettingsError) as rejected:
        apply_without_restart(running, loads(LOOPBACK + ROUTE))  # open callers, on an address that it does not have yet
    open_to_all, restart = rejected.value.problems
    assert open_to_all.startswith("callers.auth: is open, so every client that reaches server.host could upload.")
    assert restart == "server.host: the running value conflicts with the new settings. Restart."
