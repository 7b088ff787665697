"""Settings of a gateway that waits for nothing longer than it must: what takes minutes in life takes parts of a second.

It knows the settings file, and the addresses of the stand-ins.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bridge.sandbox.sandbox import Sandbox
from tests.end_to_end.reckoning import RUN_URL, TAGS


def quick_settings(sandbox: Sandbox, folder: Path) -> dict[str, Any]:
    """Return settings for a gateway before `sandbox` that keeps all it has below `folder`."""
    return {
        "server": {"host": "127.0.0.1", "port": 0},
        "admin": {"port": 0},
        "store": {"url": f"sqlite:///{folder}/bridge.db", "spool": f"{folder}/spool", "min_free_space": "16 MiB"},
        "testnod": {
            "base_url": sandbox.testnod_url,
            "storage_hosts": [urlsplit(sandbox.s3_url).hostname],
            "allow_private_storage": True,
        },
        "codearts": {"endpoint": sandbox.codearts_url},
        "polling": {
            "initial_delay": "200ms",
            "min_interval": "200ms",
            "max_interval": "1s",
            "grace_period": "500ms",
            "requests_per_minute": 12_000,
        },
        "delivery": {"retry_initial_delay": "100ms", "retry_max_delay": "1s"},
        "callers": {"auth": "open"},
        "routes": [
            {"name": "all", "project_token": sandbox.project_token, "tags": list(TAGS), "run_url": RUN_URL},
        ],
    }
