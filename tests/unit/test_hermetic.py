"""Two suites run side by side on one machine: a scan of the tests for what would let them meet."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PORT = re.compile(
    r"""
    (?: (?:127\.0\.0\.1 | localhost | 0\.0\.0\.0 | \[::1?\] | \[::ffff:127\.0\.0\.1\]) : (?P<address>\d+) )
  | (?: (?:(?<![a-z]) | \\n) port ["']? \]? \s* [=:] \s* (?P<named>\d+) )
  | (?: ["'] (?:127\.0\.0\.1 | localhost | ::1) ["'] , \s* (?P<pair>\d+) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A number that is a port: of an address of this machine, of a setting or argument, of a socket."""

ANY_OR_NONE = {"0", "1"}  # 0 lets the system choose; no server of ours has 1

NOTHING_LISTENS_THERE = {
    "integration/client/test_presigned_put.py": "URLs that must not be called",
    "integration/sandbox/test_sandbox.py": "the address that the banner shows",
    "integration/server/test_admin.py": "Host headers",
    "integration/test_deploy.py": "addresses in files, which are read",
    "integration/test_start_imports.py": "addresses of upstreams, which are not called",
    "integration/test_traces.py": "what a span has, made by hand",
    "unit/app/test_start_errors.py": "errors of listeners, made by hand",
    "unit/client/test_session.py": "a connection's key, made by hand",
    "unit/client/test_ssrf_guard.py": "resolved addresses, made by hand",
    "unit/commands/test_admin_client.py": "a setting, of which a URL is made",
    "unit/commands/test_console.py": "the text of an error",
    "unit/domain/junit/test_validator.py": "external entities that must not be fetched",
    "unit/domain/test_no_proxy.py": "names to be matched",
    "unit/sandbox/test_presign.py": "URLs to be signed",
    "unit/server/admin/test_app.py": "Host headers",
    "unit/settings/test_problems.py": "settings to be refused",
    "unit/settings/test_toml_errors.py": "settings to be refused",
    "unit/settings/test_summary.py": "settings to be compared",
    "unit/settings/test_rules.py": "settings to be refused",
    "unit/telemetry/test_otel.py": "what a span has, made by hand",
}
"""Files that name ports and neither listen nor connect, with what the ports are."""

BOUND = re.compile(
    r"^\s*assert\b.*(?:(?:monotonic|perf_counter|(?<!process_)time)\(\)\s*-|slowest|elapsed|took)[^=<>]*<", re.MULTILINE
)
"""An upper limit of the time that something took."""


def test_no_test_names_a_port_that_another_process_may_have():
    found = {name for name, text in sources() for port in ports(text) if port not in ANY_OR_NONE}
    assert found == NOTHING_LISTENS_THERE.keys()


def test_no_test_fails_because_the_machine_is_slow():
    assert [name for name, text in sources() if BOUND.search(text)] == []


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("port = 8080", "8080"),
        (r'"[admin]\nport = 8081\n"', "8081"),
        ('{"port": 8081}', "8081"),
        ('settings["port"] = 8081', "8081"),
        ("Sandbox(control_port=8184)", "8184"),
        ('"--s3-port=8183"', "8183"),
        ('"BRIDGE_ADMIN__PORT=8081"', "8081"),
        ("http://127.0.0.1:9/k", "9"),
        ("https://[::1]:8443", "8443"),
        ('socket.create_server(("127.0.0.1", 9000))', "9000"),
        ('asyncio.start_server(serve, "127.0.0.1", 9000)', "9000"),
        ("port = 0", "0"),
        ("http://192.0.2.1:80", None),
        ("report = 3", None),
    ],
)
def test_the_scan_finds_ports_however_they_are_written(line, port):
    assert ports(line) == ([] if port is None else [port])


def test_the_scan_finds_upper_limits():
    assert BOUND.search("    assert time.monotonic() - began < 15\n")
    assert BOUND.search("    assert ci.slowest_seconds < ANSWER_SECONDS\n")
    assert not BOUND.search("    assert time.monotonic() - began >= 0.2\n")


def sources():
    """Yield the name and the text of every file of the tests but this one."""
    for path in sorted(TESTS.rglob("*.py")):
        if path != Path(__file__):
            yield path.relative_to(TESTS).as_posix(), path.read_text(encoding="utf-8")


def ports(text):
    """Return the ports that a text names, in its order."""
    return [number for match in PORT.finditer(text) for number in match.groups() if number is not None]
