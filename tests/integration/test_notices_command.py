"""`bridge notices test`, and what check-config states of `[[notices]]`."""

import asyncio
import threading

import pytest
from aiohttp import web

from bridge.cli import main
from tests.support.ports import REFUSED_URL
from tests.support.webhook_receiver import KEY, WebhookReceiver

SETTINGS = """\
[server]
host = "127.0.0.1"
[callers]
auth = "open"
[[routes]]
name = "shop"
project_token = "canary-project-token"
"""


@pytest.fixture
def receivers():
    """A receiver of each format, in an event loop of their own: commands run one themselves."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    made = [WebhookReceiver(format=format_) for format_ in ("json", "slack", "feishu", "dingtalk", "wecom")]
    for receiver in made:
        call(receiver.__aenter__())
    yield made
    for receiver in made:
        call(receiver.__aexit__())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def written(folder, *receivers):
    tables = [f'[[notices]]\nurl = "{each.url}"\nformat = "{each.format}"\n' for each in receivers]
    path = folder / "bridge.toml"
    path.write_text(SETTINGS + "".join(tables), encoding="utf-8")
    return str(path)


def run(*arguments):
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    return exited.value.code


def test_a_test_notice_goes_to_each_target(tmp_path, receivers, capsys):
    assert run("notices", "test", "-c", written(tmp_path, *receivers)) == 0
    for receiver in receivers:
        [notice] = receiver.received
        assert receiver.faults == []
        assert "a test notice" in notice.text
    assert receivers[0].received[0].content["type"] == "bridge.test"
    assert capsys.readouterr().out.count("arrived") == 5


def test_a_target_that_fails_is_named_without_its_key(tmp_path, receivers, capsys):
    json_receiver, *_, wecom = receivers
    wecom.script = [lambda _request: web.json_response({"errcode": 93000, "errmsg": f"invalid {KEY}"})]
    assert run("notices", "test", "-c", written(tmp_path, json_receiver, wecom)) == 1
    printed = "".join(capsys.readouterr())
    assert "notices[0] (127.0.0.1): the test notice arrived." in printed
    assert "notices[1] (127.0.0.1): It rejected the notice (code 93000: the key in the URL is not valid)." in printed
    assert KEY not in printed


def test_a_target_that_cannot_be_reached_is_a_failure(tmp_path, capsys):
    path = tmp_path / "bridge.toml"
    path.write_text(f'{SETTINGS}[[notices]]\nurl = "{REFUSED_URL}/hook/canary12345"\n', encoding="utf-8")
    assert run("notices", "test", "-c", str(path)) == 1
    printed = "".join(capsys.readouterr())
    assert "cannot connect" in printed
    assert "canary12345" not in printed


def test_without_a_table_the_command_says_what_to_add(tmp_path, capsys):
    assert run("notices", "test", "-c", written(tmp_path)) == 1
    assert "no [[notices]] table" in capsys.readouterr().err
