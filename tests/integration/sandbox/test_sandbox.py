"""The sandbox's listeners, and the settings and instructions that it prints."""

import tomllib
from urllib.parse import urlsplit

import pytest

from bridge.sandbox.sandbox import Sandbox, banner, settings_toml
from tests.support.ports import held_port


async def test_each_service_has_its_own_port(sandbox):
    urls = [sandbox.codearts_url, sandbox.testnod_url, sandbox.s3_url, sandbox.control_url]
    assert len({urlsplit(url).port for url in urls}) == 4
    assert {urlsplit(url).hostname for url in urls} == {"127.0.0.1"}


async def test_a_port_that_was_asked_for_is_taken_and_free_again_afterwards():
    with held_port() as port:
        for _ in range(2):
            async with Sandbox(control_port=port) as sandbox:
                assert urlsplit(sandbox.control_url).port == port


async def test_a_port_in_use_opens_nothing():
    async with Sandbox() as first:
        taken = urlsplit(first.s3_url).port
        with pytest.raises(OSError, match="in use"):
            async with Sandbox(s3_port=taken):
                pass


async def test_the_settings_point_a_gateway_at_it():
    async with Sandbox(project_token='quo"ted') as sandbox:
        settings = tomllib.loads(settings_toml(sandbox))
    assert settings["testnod"] == {
        "base_url": sandbox.testnod_url,
        "storage_hosts": ["127.0.0.1"],
        "allow_private_storage": True,
    }
    assert settings["codearts"] == {"endpoint": sandbox.codearts_url, "auth": "none"}
    assert settings["callers"] == {"auth": "open"}
    assert settings["routes"] == [{"name": "sandbox", "project_token": 'quo"ted', "job_id": "*"}]


async def test_the_banner_tells_every_address_the_settings_and_three_commands(sandbox):
    text = banner(sandbox)
    for part in (sandbox.codearts_url, sandbox.testnod_url, sandbox.s3_url, settings_toml(sandbox)):
        assert part in text
    commands = [line for line in text.splitlines() if line.startswith("curl ")]
    assert len(commands) == 3
    assert commands[0].startswith(f"curl -X POST {sandbox.control_url}/builds ")
    assert "http://127.0.0.1:8080/v1/report/junit/report/upload?job_id=" in commands[1]
    assert commands[2].endswith("/end")
