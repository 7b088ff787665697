"""Finds the settings for a command: the file that was named, under the environment of the process.

It must not know what a setting means.
"""

import asyncio
import os
from pathlib import Path

from bridge.clock import SystemClock
from bridge.commands.console import keyed, remark, say
from bridge.settings import Settings, load, unused_variables, warnings
from bridge.store import ledger


def read_settings(path: Path) -> Settings:
    """Return the settings in force; raise SettingsError with every complaint."""
    return load(path, os.environ)


def advice_on(settings: Settings) -> list[str]:
    """Return what is allowed but hardly meant, in the settings and in the environment of the process."""
    return [*unused_variables(settings, os.environ), *warnings(settings)]


# `bridge check-config`: what is wrong with the settings, or what to think about, before a gateway runs on them.
#
# It must not open anything but the settings and the secret files that they name.


def check_config(path: Path) -> None:
    """Print advice and one line that all is well; raise SettingsError with every complaint."""
    settings = read_settings(path)
    sentences = advice_on(settings)
    for sentence in sentences:
        remark(keyed(sentence, "yellow"))
    routes = ", ".join(route.name for route in settings.routes)
    say(f"{path} is OK: {_counted(len(settings.routes), 'route')} ({routes}), {_advice(len(sentences))}.")


def _advice(number: int) -> str:
    return f"{_counted(number, 'line')} of advice above" if number else "no advice"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# Who on this machine may read what a command writes: its user and group, as these are set up, and nobody else.
#
# It must not know what is written.


OTHERS = 0o007
"""Reports, and URLs that are still good, lie in the ledger and the spool."""


def restrict_umask() -> None:
    """Let no file that this process makes from now on be open to other users; what its group may stays as it is."""
    os.umask(os.umask(OTHERS) | OTHERS)


# `bridge migrate`: the ledger's schema, brought to this version's.
#
# It must not know what the migrations do.


def migrate_ledger(path: Path) -> None:
    """Make the ledger where there is none, else migrate it; raise LedgerError where it is in use or newer."""
    restrict_umask()
    name, revision = asyncio.run(ledger.migrate_ledger(read_settings(path).store.url, SystemClock()))
    say(f"The ledger {name} is at schema {revision}.")
