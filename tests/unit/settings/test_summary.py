import json

from pydantic import SecretStr

from bridge.settings.introspection import is_secret, table_of
from bridge.settings.model import CallersSettings, RouteSettings, Settings, StoreSettings
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
