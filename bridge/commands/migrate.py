"""`bridge migrate`: the ledger's schema, brought to this version's.

It must not know what the migrations do.
"""

import asyncio
from pathlib import Path

from bridge.clock import SystemClock
from bridge.commands.configuration import read_settings
from bridge.commands.privacy import keep_from_others
from bridge.commands.screen import say
from bridge.store import ledger


def migrate_ledger(path: Path) -> None:
    """Make the ledger where there is none, else migrate it; raise LedgerError where it is in use or newer."""
    keep_from_others()
    name, revision = asyncio.run(ledger.migrate_ledger(read_settings(path).store.url, SystemClock()))
    say(f"The ledger {name} is at schema {revision}.")
