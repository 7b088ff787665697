"""No write depends on a notice: if its events cannot be made, uploads and deliveries go on."""

from bridge.app import gateway
from bridge.sandbox.sandbox import Sandbox
from bridge.worker import change_writer
from tests.support.whole import build_of, running_gateway, until, upload


def broken(*_arguments):
    raise RuntimeError("a bug in what makes events")


async def test_uploads_and_deliveries_go_on_if_events_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway, "events_of_upload", broken)
    monkeypatch.setattr(change_writer, "events_of_changes", broken)
    table = '[[notices]]\nurl = "http://127.0.0.1:1/hook"\nformat = "json"'
    async with Sandbox() as sandbox, running_gateway(tmp_path, sandbox, table) as running:
        await upload(running, complete=True)

        async def is_delivered():
            return (await build_of(running))["state"] == "ended"

        await until(is_delivered)
        assert len(sandbox.state.runs.all(None)) == 1
