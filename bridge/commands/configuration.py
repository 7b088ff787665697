"""Finds the settings for a command: the file that was named, under the environment of the process.

It must not know what a setting means.
"""

import os
from pathlib import Path

from bridge.commands import CONFIG_VARIABLE
from bridge.settings import Settings, load


def read_settings(path: Path) -> Settings:
    """Return the settings in force; raise SettingsError with every complaint."""
    # It looks like a setting and is none.
    environ = {name: value for name, value in os.environ.items() if name != CONFIG_VARIABLE}
    return load(path, environ)
