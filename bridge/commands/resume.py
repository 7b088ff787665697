"""`bridge resume`: lets a restored ledger go, through the gateway that holds it.

It must not know what becomes of the doubtful reports.
"""

import asyncio
from pathlib import Path
from typing import Any

from bridge.commands.asking import NobodyThereError, admin_url, ask
from bridge.commands.configuration import read_settings
from bridge.commands.screen import remark, say
from bridge.errors import BridgeError
from bridge.settings.model import AdminSettings

NAMED = 20  # doubtful reports on a screen; /api/v1/held names more


def resume(path: Path, *, doubtful: str | None) -> None:
    """Resume, saying what is to become of the doubtful; raise BridgeError where that is not possible."""
    admin = read_settings(path).admin
    try:
        asyncio.run(_resume(admin, doubtful))
    except NobodyThereError:
        raise BridgeError(
            f"No gateway answers at {admin_url(admin)}. Start it with `bridge serve --held`: it first takes up what "
            "lies in the spool without a row."
        ) from None


async def _resume(admin: AdminSettings, doubtful: str | None) -> None:
    held = await ask(admin, "/api/v1/held")
    if doubtful is None:
        for report in held["reports"][:NAMED]:
            remark(_line(report))
    resumed = await ask(admin, "/api/v1/resume", body={"doubtful": doubtful})
    say(str(resumed["result"]))


def _line(report: dict[str, Any]) -> str:
    return f"doubtful: {report['job_id']}/{report['build_no']} {report['node_id']} {report['name']}"
