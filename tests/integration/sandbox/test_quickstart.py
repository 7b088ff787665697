import tomllib

from bridge.sandbox.quickstart import banner, settings_toml
from bridge.sandbox.sandbox import Sandbox


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
