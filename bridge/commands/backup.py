"""`bridge backup DEST` copies the ledger and its spool files; `bridge resume` ends the pause of a restored ledger."""

import asyncio
from pathlib import Path
from typing import Any

from bridge.clock import SystemClock
from bridge.commands.admin_client import AdminAddress, GatewayNotRunning, request_admin_api
from bridge.commands.config import read_settings, restrict_umask
from bridge.commands.console import print_note, print_result
from bridge.domain.text_format import counted
from bridge.errors import BackupFailed, BridgeError
from bridge.settings.rules import s3_location
from bridge.store.backup import SPOOL, BackupResult, back_up
from bridge.store.engine.postgres_url import is_postgres
from bridge.store.ledger import path_of, require_ledger

SHOWN_REPORTS = 20  # uncertain reports that `bridge resume` lists; /api/v1/paused lists more


def back_up_ledger(path: Path, folder: Path) -> None:
    """Copy ledger and spool to the new `folder`; raise BackupFailed if that is not possible."""
    store = read_settings(path).store
    in_s3 = s3_location(store.spool) is not None
    if is_postgres(store.url):
        spool_advice = (
            f"keep versions of {store.spool}" if in_s3 else f"copy the folder {store.spool} before and after it"
        )
        raise BackupFailed(
            f"The ledger is in PostgreSQL, which has its own backups. Use pg_dump, {spool_advice}, and start a "
            "restored ledger with `bridge serve --paused`."
        )
    spool = None if in_s3 else Path(store.spool)
    restrict_umask()
    require_ledger(path_of(store.url))
    copied = back_up(path_of(store.url), spool, folder, SystemClock().now(), print_note)
    print_result(
        f"Copied the ledger, {copied.ledger_bytes} bytes, to {copied.ledger}. The copy is paused until `bridge resume`."
    )
    if in_s3:
        print_result(f"The spool is in {store.spool} and was not copied. Keep its objects.")
    else:
        print_result(_spool_line(copied, folder))


def _spool_line(copied: BackupResult, folder: Path) -> str:
    if copied.blobs:
        size = f"{counted(copied.blobs, 'file')} of the spool, {counted(copied.blob_bytes, 'byte')}"
        line = f"Copied {size}, to {folder / SPOOL}."
    else:
        line = "The ledger names no file of the spool, so there was none to copy."
    if copied.gone:
        line += f" {len(copied.gone)} more were delivered meanwhile and are gone."
    return line


def resume(path: Path, *, uncertain: str | None) -> None:
    """Resume deliveries; `uncertain` is "assume-delivered", "redeliver" or None.

    Raise BridgeError if no gateway runs, or if there are uncertain reports and `uncertain` is None.
    """
    admin = AdminAddress.find(path)
    try:
        asyncio.run(_resume(admin, uncertain))
    except GatewayNotRunning:
        raise BridgeError(
            f"No gateway answers at {admin.url}. Start it with `bridge serve --paused`, which first restores "
            "reports of the spool that are not in the ledger."
        ) from None


async def _resume(admin: AdminAddress, uncertain: str | None) -> None:
    paused = await request_admin_api(admin, "/api/v1/paused")
    if uncertain is None:
        for report in paused["reports"][:SHOWN_REPORTS]:
            print_note(_report_line(report))
    resumed = await request_admin_api(admin, "/api/v1/resume", body={"uncertain": uncertain})
    print_result(str(resumed["result"]))


def _report_line(report: dict[str, Any]) -> str:
    return f"uncertain: {report['job_id']}/{report['build_no']} {report['node_id']} {report['name']}"
