"""SIGHUP to the real process: settings and secret files are read again, whatever is going on."""

import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.end_to_end.conftest import NewGateway
from tests.end_to_end.processes import GatewayProcess, Settings, until

OLD, NEW, NEVER = "canary-old-token-51", "canary-new-token-52", "canary-never-taken-53"
STATUS = f"/bridge/v1/builds/{'a' * 32}/1"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(OLD)
    return path


@pytest.fixture
def settings(settings: dict[str, Any], token_file: Path) -> Settings:
    caller = {"name": "ci", "token_file": str(token_file), "scopes": ["status"]}
    return {**settings, "callers": {"auth": "token"}, "callers.tokens": [caller]}


async def status(gateway: GatewayProcess, token: str) -> int:
    async with (
        aiohttp.ClientSession() as http,
        http.get(gateway.server_url + STATUS, headers={"X-Auth-Token": token}) as answer,
    ):
        return answer.status


async def reloaded(gateway: GatewayProcess, event: str = "settings reloaded", times: int = 1) -> dict[str, Any]:
    await until(lambda: len(gateway.events(event)) >= times, f"{event}, {times} times")
    return gateway.events(event)[-1]


async def test_a_secret_file_that_changed_is_taken_and_never_shown(gateway: GatewayProcess, token_file: Path) -> None:
    token_file.write_text(NEW)
    gateway.signal(signal.SIGHUP)

    said = await reloaded(gateway)
    assert list(said["changed"]) == ["callers.tokens.ci.token"]
    assert [await status(gateway, token) for token in (OLD, NEW)] == [401, 404]
    assert not any(canary in gateway.stderr() for canary in (OLD, NEW))
    assert await gateway.terminate() == 0


async def test_a_bad_file_changes_nothing_and_every_complaint_is_said(
    gateway: GatewayProcess, settings: dict[str, Any], token_file: Path
) -> None:
    token_file.write_text(NEVER)
    gateway.write({**settings, "polling": {"min_interval": "2s", "max_interval": "1s"}, "delivery": {"nonsense": 1}})
    gateway.signal(signal.SIGHUP)

    said = await reloaded(gateway, "settings not taken, those before stay in force")
    assert [complaint.partition(":")[0] for complaint in said["problems"]] == [
        "delivery.nonsense",
        "polling.max_interval",
    ]
    assert [await status(gateway, token) for token in (OLD, NEVER)] == [404, 401]

    gateway.write(settings)
    gateway.signal(signal.SIGHUP)
    await reloaded(gateway)
    assert [await status(gateway, token) for token in (OLD, NEVER)] == [401, 404]
    assert not any(canary in gateway.stderr() for canary in (OLD, NEVER))


async def test_what_needs_a_restart_is_named_and_the_rest_is_taken(
    gateway: GatewayProcess, settings: dict[str, Any], token_file: Path
) -> None:
    token_file.write_text(NEW)
    gateway.write({**settings, "server": {**settings["server"], "host": "localhost"}})
    gateway.signal(signal.SIGHUP)

    said = await reloaded(gateway, "settings that need a restart stay as they were")
    assert said["needs_restart"] == {"server.host": "127.0.0.1 → localhost"}
    assert await status(gateway, NEW) == 404


async def test_a_reload_that_is_asked_for_many_times_ends_nothing(
    new_gateway: NewGateway, settings: Settings, token_file: Path
) -> None:
    gateway = new_gateway(settings)
    await gateway.start()
    token_file.write_text(NEW)
    for _ in range(20):
        gateway.signal(signal.SIGHUP)
    await reloaded(gateway)
    assert await status(gateway, NEW) == 404
    assert await gateway.terminate() == 0
