"""`bridge migrate`: the ledger's schema, brought to this version's while no gateway has it open.

It must not know what the migrations do.
"""

from pathlib import Path

from bridge.clock import SystemClock
from bridge.commands.configuration import read_settings
from bridge.commands.screen import say
from bridge.store.migrate import migrate
from bridge.store.sqlite import SqliteDatabase


def migrate_ledger(path: Path) -> None:
    """Make the ledger where there is none, else migrate it; raise LedgerError where it is in use or newer."""
    ledger = read_settings(path).store.ledger_path
    ledger.parent.mkdir(parents=True, exist_ok=True)
    database = SqliteDatabase(ledger, SystemClock())
    try:
        database.lock()
        revision = migrate(database.writing)
    finally:
        database.close()
    say(f"The ledger {ledger} is at schema {revision}.")
