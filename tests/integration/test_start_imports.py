"""What a gateway on SQLite imports when it starts: nothing that it does not use, because that is most of a start."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import bridge

UNUSED = (
    "aiobotocore",
    "botocore",
    "alembic",
    "asyncpg",
    "sqlalchemy.orm",
    "sqlalchemy.ext.asyncio",
    "rich.",
    "jinja2",
    "pygments",
    "re2",
    "opentelemetry",
    "lxml",
    "bridge.domain.junit.validator",
    "bridge.server.admin.console.pages",
    "bridge.server.validation.transform",
)
SETTINGS = """
[server]
host = "127.0.0.1"
port = 0
[admin]
port = 0
[store]
url = "sqlite:///{folder}/bridge.db"
spool = "{folder}/spool"
[testnod]
base_url = "http://127.0.0.1:9"
[callers]
auth = "open"
[[routes]]
name = "any"
project_token = "a-token-of-a-project"
"""


def serve_until_it_listens(config: Path) -> set[str]:
    """Start a gateway by the interpreter, stop it once it listens, and return the modules that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", "bridge", "serve", str(config)]
    environment = os.environ | {"PYTHONPATH": str(Path(bridge.__file__).parent.parent)}
    modules, log = set(), []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("import time:"):
                modules.add(line.rpartition("|")[2].strip())
            else:
                log.append(line)
            if '"gateway_listening"' in line:
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0, "".join(log)
    return modules


def test_a_gateway_on_sqlite_imports_nothing_that_it_does_not_use(tmp_path: Path):
    config = tmp_path / "bridge.toml"
    config.write_text(SETTINGS.format(folder=tmp_path), encoding="utf-8")
    first, second = serve_until_it_listens(config), serve_until_it_listens(config)

    assert "bridge.app.gateway" in second
    assert "alembic" in first  # the first start creates the ledger
    assert [name for name in second if name.startswith(UNUSED)] == []
