"""`bridge backup DEST`: a copy of a running ledger with the part of the spool that it names.

It must not know how a copy is made consistent.
"""

from pathlib import Path

from bridge.clock import SystemClock
from bridge.commands.configuration import read_settings
from bridge.commands.privacy import keep_from_others
from bridge.commands.screen import remark, say
from bridge.errors import BackupFailed
from bridge.settings.bytes_rules import s3_place
from bridge.store.backup import SPOOL, Copied, back_up
from bridge.store.engine.connecting import is_postgres
from bridge.store.ledger import path_of


def back_up_ledger(path: Path, folder: Path) -> None:
    """Copy ledger and spool into the new `folder`; raise BackupFailed where that cannot be done."""
    store = read_settings(path).store
    in_s3 = s3_place(store.spool) is not None
    if is_postgres(store.url):
        bytes_of = f"keep versions of {store.spool}" if in_s3 else f"copy the folder {store.spool} before and after it"
        raise BackupFailed(
            f"The ledger is in PostgreSQL, which makes its own copies. Use pg_dump, {bytes_of}, and start what was "
            "restored with `bridge serve --held`."
        )
    spool = None if in_s3 else Path(store.spool)
    keep_from_others()
    copied = back_up(path_of(store.url), spool, folder, SystemClock().now(), remark)
    say(f"Copied the ledger, {copied.ledger_bytes} bytes, to {copied.ledger}. It is held until `bridge resume`.")
    say(
        f"The spool is in {store.spool} and was not copied. Keep its objects." if in_s3 else _spool_line(copied, folder)
    )


def _spool_line(copied: Copied, folder: Path) -> str:
    line = f"Copied {copied.blobs} files of the spool, {copied.blob_bytes} bytes, to {folder / SPOOL}."
    if copied.gone:
        line += f" {len(copied.gone)} more were delivered meanwhile and are gone."
    return line
