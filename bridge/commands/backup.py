"""`bridge backup DEST`: a copy of a running ledger with the part of the spool that it names.

It must not know how a copy is made consistent.
"""

import asyncio
from pathlib import Path
from typing import Any

from bridge.clock import SystemClock
from bridge.commands.admin_client import GatewayNotRunning, admin_url, ask
from bridge.commands.config import read_settings, restrict_umask
from bridge.commands.console import remark, say
from bridge.errors import BackupFailed, BridgeError
from bridge.settings.model import AdminSettings
from bridge.settings.rules import s3_location
from bridge.store.backup import SPOOL, BackupResult, back_up
from bridge.store.engine.postgres import is_postgres
from bridge.store.ledger import path_of


def back_up_ledger(path: Path, folder: Path) -> None:
    """Copy ledger and spool into the new `folder`; raise BackupFailed where that cannot be done."""
    store = read_settings(path).store
    in_s3 = s3_location(store.spool) is not None
    if is_postgres(store.url):
        bytes_of = f"keep versions of {store.spool}" if in_s3 else f"copy the folder {store.spool} before and after it"
        raise BackupFailed(
            f"The ledger is in PostgreSQL, which makes its own copies. Use pg_dump, {bytes_of}, and start what was "
            "restored with `bridge serve --held`."
        )
    spool = None if in_s3 else Path(store.spool)
    restrict_umask()
    copied = back_up(path_of(store.url), spool, folder, SystemClock().now(), remark)
    say(f"Copied the ledger, {copied.ledger_bytes} bytes, to {copied.ledger}. It is held until `bridge resume`.")
    say(
        f"The spool is in {store.spool} and was not copied. Keep its objects." if in_s3 else _spool_line(copied, folder)
    )


def _spool_line(copied: BackupResult, folder: Path) -> str:
    line = f"Copied {copied.blobs} files of the spool, {copied.blob_bytes} bytes, to {folder / SPOOL}."
    if copied.gone:
        line += f" {len(copied.gone)} more were delivered meanwhile and are gone."
    return line


# `bridge resume`: lets a restored ledger go, through the gateway that holds it.
#
# It must not know what becomes of the doubtful reports.


NAMED = 20  # doubtful reports on a screen; /api/v1/held names more


def resume(path: Path, *, doubtful: str | None) -> None:
    """Resume, saying what is to become of the doubtful; raise BridgeError where that is not possible."""
    admin = read_settings(path).admin
    try:
        asyncio.run(_resume(admin, doubtful))
    except GatewayNotRunning:
        raise BridgeError(
            f"No gateway answers at {admin_url(admin)}. Start it with `bridge serve --held`: it first takes up what "
            "lies in the spool without a row."
        ) from None


async def _resume(admin: AdminSettings, doubtful: str | None) -> None:
    held = await ask(admin, "/api/v1/paused")
    if doubtful is None:
        for report in held["reports"][:NAMED]:
            remark(_line(report))
    resumed = await ask(admin, "/api/v1/resume", body={"uncertain": doubtful})
    say(str(resumed["result"]))


def _line(report: dict[str, Any]) -> str:
    return f"doubtful: {report['job_id']}/{report['build_no']} {report['node_id']} {report['name']}"
