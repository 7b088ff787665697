import json

import pytest
from pydantic import SecretStr

from bridge.settings import secret_values
from bridge.settings.model import CallersSettings, RouteSettings, Settings, StoreSettings, is_secret, table_of
from bridge.settings.summary import summary

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
        "routes[0].project_token",
    ]


def test_a_password_inside_a_url_is_masked():
    urls = ("postgresql://user:canary-4711@host/db", "postgresql:///db?host=/run&password=canary-4711")
    urls += ("postgresql://user:p@canary-4711@host/db", "postgresql:///db?sslpassword=canary-4711")
    for url in urls:
        shown = summary(Settings(store=StoreSettings(url=url)))["store.url"]
        assert CANARY not in str(shown)
        assert "db" in str(shown)


def test_every_setting_stands_in_the_summary_as_it_would_be_written():
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
