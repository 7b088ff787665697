import json

import pytest

from bridge.settings import diff, secret_values, summary
from bridge.settings.warnings import warnings
from tests.unit.settings.conftest import LOOPBACK, ROUTE

BASE = LOOPBACK + ROUTE
URL = "https://hooks.example/services/canary-key-1"


def table(**values):
    return "[[notices]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        (table(), "notices[0].url: is missing. Set it here, or in url_file."),
        (table(url="hooks.example"), "notices[0].url: is not an address."),
        (table(url="ftp://hooks.example/x"), "notices[0].url: is not an address."),
        (table(url="https://user:pw@hooks.example/x"), "notices[0].url: is not an address."),
        (table(url="https://hooks.example/x#y"), "notices[0].url: is not an address."),
        (table(url="https://hooks.example/<x>"), "notices[0].url: is not an address."),
        (table(url="http://hooks.example/x"), "notices[0].url: is not https"),
        (table(url=URL, format="teams"), 'notices[0].format: cannot be "teams".'),
        (table(url=URL, events=["dead"]), 'notices[0].events[0]: cannot be "dead".'),
        (table(url=URL, routes=["shpo"]), "notices[0].routes[0]: is not the name of a route. Did you mean shop?"),
        (table(url=URL, format="wecom", secret="s" * 20), "notices[0].secret: is set, although the format"),
        (table(url=URL, format="slack", secret="s" * 20), "notices[0].secret: is set, although the format"),
        (table(url=URL, secret="whsec_***"), "notices[0].secret: begins with whsec_"),
        (table(url=URL) + table(url=URL, format="feishu"), "notices[1]: has the url of notices[0]"),
        (table(url=URL, secret="a" * 9) + table(url=URL, secret="b" * 9), "notices[1]: has the url of notices[0]"),
    ],
)
def test_each_mistake_is_named_without_the_address(problems_of, tables, problem):
    [found] = problems_of(BASE + tables)
    assert found.startswith(problem)
    assert "canary" not in found
    assert "hooks.example" not in found


@pytest.mark.parametrize(
    "tables",
    [
        table(url=URL),
        table(url=URL, routes=["shop"]) + table(url=URL, events=["certificate_ends"]),
        table(url="http://127.0.0.1/hooks/x"),
        table(url="http://chat.corp.example/hooks/x") + '[outbound]\nno_proxy = [".corp.example"]\n',
        table(url=URL, secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        table(url="https://open.feishu.cn/open-apis/bot/v2/hook/x", format="feishu", secret="abcdefgh"),
    ],
)
def test_these_tables_are_valid(loads, tables):
    settings = loads(BASE + tables)
    assert all("notices" not in warning for warning in warnings(settings))


def test_the_address_comes_from_a_file(loads, tmp_path):
    (tmp_path / "hook").write_text(URL + "\n", encoding="utf-8")
    settings = loads(BASE + '[[notices]]\nurl_file = "{folder}/hook"\n')
    assert settings.notices[0].url.get_secret_value() == URL


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (table(url="https://oapi.dingtalk.com/robot/send?access_token=x"), 'but the address is of "dingtalk"'),
        (table(url=URL, events=["certificate_ends"], routes=["shop"]), "belong to no route"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(loads, tables, says):
    assert any(says in warning for warning in warnings(loads(BASE + tables)))


def test_keys_of_an_address_are_secret_and_no_other_address_that_begins_alike_is(loads):
    before, after = loads(BASE + table(url=URL)), loads(BASE + table(url=URL[:-1] + "2"))
    assert summary(before)["notices[0].url"] == "set"
    assert diff(before, after) == {"notices.[0].url": "changed"}
    assert "canary-key-1" in secret_values(before)
    assert URL not in secret_values(before)
