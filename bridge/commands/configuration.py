"""Finds the settings for a command: the file that was named, under the environment of the process.

It must not know what a setting means.
"""

import os
from pathlib import Path

from bridge.settings import Settings, advice, load, unused_variables


def read_settings(path: Path) -> Settings:
    """Return the settings in force; raise SettingsError with every complaint."""
    return load(path, os.environ)


def advice_on(settings: Settings) -> list[str]:
    """Return what is allowed but hardly meant, in the settings and in the environment of the process."""
    return [*unused_variables(settings, os.environ), *advice(settings)]
