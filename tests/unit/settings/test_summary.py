import json

import pytest
from pydantic import SecretStr

from bridge.errors import SettingsError
from bridge.settings import apply_without_restart, diff, secret_values
from bridge.settings.model import CallersSettings, RouteSettings, Settings, StoreSettings, is_secret, table_of
from bridge.settings.summary import summary
from tests.unit.settings.conftest import LOOPBACK, ROUTE

CANARY = "canary-4711"


def filled(table):
    values = {}
    for name, field in table.model_fields.items():
        kind = table_of(field)
        if is_secret(field):
            values[name] = CANARY
        elif kind is not None:
            values[name] = [filled(kind)] if isinstance(field.default, tuple) else filled(kind)
    return values


def test_no_secret_of_any_table_is_ever_in_the_summary_or_the_value_itself():
    settings = Settings.model_validate(filled(Settings))
    assert settings.routes[0].project_token == SecretStr(CANARY)
    shown = summary(settings)
    assert CANARY not in json.dumps(shown)
    assert CANARY not in repr(settings)
    masked = [key for key, value in shown.items() if value in ("set", ["set"])]
    assert masked == [
        "admin.token",
        "admin.viewer_token",
        "s3.access_key_id",
        "s3.secret_access_key",
        "outbound.http_proxy",
        "codearts.access_key",
        "codearts.secret_key",
        "codearts.password",
        "codearts.token",
        "callers.tokens[0].token",
        "callers.tokens[0].hash",
        "callers.keys[0].access_key",
        "callers.keys[0].secret_key",
        "webhook.secret",
        "notices[0].url",
        "notices[0].secret",
        "routes[0].project_token",
    ]


def test_a_password_inside_a_url_is_masked():
    urls = ("postgresql://user:canary-4711@host/db", "postgresql:///db?host=/run&password=canary-4711")
    urls += ("postgresql://user:p@canary-4711@host/db", "postgresql:///db?sslpassword=canary-4711")
    for url in urls:
        shown = summary(Settings(store=StoreSettings(url=url)))["store.url"]
        assert CANARY not in str(shown)
        assert "db" in str(shown)


def test_the_summary_has_every_setting_as_in_the_file():
    shown = summary(Settings(routes=(RouteSettings(name="shop"),), callers=CallersSettings(auth=("open",))))
    assert shown["server.max_report_size"] == "50 MiB"
    assert shown["polling.confirm_timeout"] == "1h"
    assert shown["server.on_invalid"] == "fail"
    assert shown["routes[0].name"] == "shop"
    assert shown["routes[0].project_token"] == ""
    assert shown["callers.auth"] == ["open"]
    assert json.loads(json.dumps(shown)) == shown


def test_every_secret_that_is_set_is_found_and_nothing_else(loads):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n[admin]\ntoken = ["canary-1", "canary-2"]\n[codearts]\ntoken = "canary-3"\n'
        '[[callers.tokens]]\nname = "ci"\ntoken = "canary-4"\n'
        '[[routes]]\nname = "shop"\nproject_token = "canary-5"\ntags = ["unit"]\n'
    )
    assert secret_values(settings) == {f"canary-{number}" for number in range(1, 6)}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bridge:canary%2F1@db.example/bridge",
        "postgresql://bridge@/bridge?host=/run/postgresql&password=canary%2F1",
        "postgresql:///bridge?sslkey=key.pem&sslpassword=canary%2F1",
    ],
)
def test_the_password_of_the_ledger_is_a_secret(loads, url):
    settings = loads(
        f'[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n[store]\nurl = "{url}"\n'
        '[[routes]]\nname = "shop"\nproject_token = "canary-5"\n'
    )
    assert secret_values(settings) == {"canary%2F1", "canary/1", "canary-5"}


def test_the_password_of_a_proxy_is_a_secret_alone_too(loads):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n[testnod]\nstorage_hosts = ["s3.example"]\n'
        '[outbound]\nhttp_proxy = "http://user:canary%2F1@proxy.example:3128"\n'
        '[[routes]]\nname = "shop"\nproject_token = "canary-5"\n'
    )
    proxy = "http://user:canary%2F1@proxy.example:3128"
    assert secret_values(settings) == {proxy, "canary%2F1", "canary/1", "canary-5"}


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


def test_a_rule_that_changes_is_shown_by_route_and_position(loads):
    rule = "[[routes.rewrite]]\npattern = '{}'\n"
    before = loads(LOOPBACK + ROUTE + rule.format("a") + rule.format("b"))
    after = loads(LOOPBACK + ROUTE + rule.format("a") + rule.format("c"))
    assert diff(before, after) == {"routes.shop.rewrite.[1].pattern": "b → c"}
    assert diff(after, loads(LOOPBACK + ROUTE)) == {"routes.shop.rewrite[]": "['[0]', '[1]'] → []"}
