"""The servers under comparison, and how each is started.

The gateway validates, requires a token and writes to SQLite with synchronous=FULL. Nothing listens at its TestNod
address, so its circuit breaker opens after five seconds of failed calls, and nothing is delivered.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from processes import ServerProcess, free_port

HERE = Path(__file__).parent
ROOT = HERE.parent

GATEWAY, FORM, SINK, PROTOTYPE = "gateway", "Starlette form", "aiohttp sink", "bare prototype"
NAIVE = "naive bridge"
NO_TELEMETRY, TRACES = "no telemetry", "with traces"
OTHER = "against"  # begins the name of another commit's gateway

_SETTINGS = """
[server]
host = "127.0.0.1"
port = {port}
{drain} = "2s"
[admin]
port = 0
[store]
url = "sqlite:///{folder}/bridge.db"
spool = "{folder}/spool"
{min_free} = "64 MiB"
[testnod]
base_url = "http://127.0.0.1:{dead_port}"
[callers]
auth = {auth}
[[callers.tokens]]
name = "bench"
token = "{token}"
[[callers.tokens]]
name = "greedy"
token = "greedy-{token}"
[[routes]]
name = "bench"
project_token = "{token}"
"""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """How a gateway is started, so that some of its telemetry is off."""

    name: str
    program: tuple[str, ...] = ("-m", "bridge")
    variables: Mapping[str, str] = field(default_factory=dict)


def telemetry_variants(collector: ServerProcess) -> tuple[Telemetry, ...]:
    """Return a gateway without telemetry, one with metrics, which is as it comes, and one with traces too."""
    traces = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        # A collector on the same cores, paused between rounds: nothing is to wait for it.
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
    }
    off = Telemetry(NO_TELEMETRY, (os.fspath(HERE / "without_metrics.py"),), {"PYTHONPATH": os.fspath(ROOT)})
    return off, Telemetry(GATEWAY), Telemetry(TRACES, variables=traces)


def collector_server(folder: Path) -> ServerProcess:
    """Return a collector of traces; with its log in `folder`."""
    return _script("collector", "collector.py", folder)


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """Check `commit` out into a worktree of its own."""
    root = folder / f"{OTHER} {commit.replace('/', '-')}"
    subprocess.run(["git", "worktree", "add", "--detach", "--quiet", root, commit], cwd=ROOT, check=True)
    try:
        yield root
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", root], cwd=ROOT, check=True)


def settings_are_old(root: Path) -> bool:
    """Return whether the checkout `root` is from before the renaming of settings."""
    return "requests_per_minute" not in (root / "config.example.toml").read_text(encoding="utf-8")


def gateway(
    folder: Path,
    token: str,
    *,
    upstream_port: int | None = None,
    auth: str = '"token"',
    tables: str = "",
    root: Path | None = None,
    telemetry: "Telemetry | None" = None,
) -> ServerProcess:
    """Return a gateway with ledger, spool and log in `folder`, which is created; `tables` are further settings.

    If `upstream_port` is given, the server on that port is its CodeArts, and the proxy needs no token. `root` is the
    checkout of another commit, if not this one is meant, and `telemetry` which of it is on.
    """
    folder.mkdir()
    port = free_port()
    config = folder / "bridge.toml"
    if upstream_port is not None:
        auth, tables = '"open"', f'[codearts]\nendpoint = "http://127.0.0.1:{upstream_port}"\n'
    is_old = root is not None and settings_are_old(root)
    settings = _SETTINGS.format(
        port=port,
        folder=folder,
        token=token,
        dead_port=free_port(),
        auth=auth,
        drain="drain" if is_old else "shutdown_timeout",
        min_free="min_free" if is_old else "min_free_space",
    )
    config.write_text(settings + tables, encoding="utf-8")
    telemetry = telemetry or Telemetry(GATEWAY if root is None else root.name)
    command = [sys.executable, *telemetry.program, "serve", "--config", os.fspath(config)]
    log, variables = folder / "gateway.log", telemetry.variables
    return ServerProcess(telemetry.name, command, port=port, folder=root or ROOT, log=log, variables=variables)


def form_server(folder: Path) -> ServerProcess:
    """Return Starlette's form handler; with its log in `folder`."""
    return _script(FORM, "form_server.py", folder)


def sink_server(folder: Path) -> ServerProcess:
    """Return the bare aiohttp sink; with its log in `folder`."""
    return _script(SINK, "sink_server.py", folder)


def prototype_server(folder: Path) -> ServerProcess:
    """Return the bare prototype; with log and ledger in `folder`."""
    return _script(PROTOTYPE, "prototype_server.py", folder, os.fspath(folder / "prototype.db"))


def naive_server(folder: Path, token: str, upstream: str = "") -> ServerProcess:
    """Return the naive bridge; with log and ledger in `folder`. Without the URL of an upstream, it only accepts."""
    return _script(NAIVE, "naive_bridge.py", folder, os.fspath(folder / "naive.db"), upstream, token)


def _script(name: str, script: str, folder: Path, *arguments: str) -> ServerProcess:
    port = free_port()
    command = [sys.executable, os.fspath(HERE / script), str(port), *arguments]
    return ServerProcess(name, command, port=port, folder=ROOT, log=folder / f"{script}.log")
