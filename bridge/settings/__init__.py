"""The settings: one TOML file, the environment and secret files, read and checked at once into one frozen value.

It must not know what the settings are used for: rooms get the values they need from app/gateway.py.
"""

from bridge.settings.diff import apply_without_restart, diff
from bridge.settings.environment import unused_variables
from bridge.settings.load import load
from bridge.settings.model import Settings
from bridge.settings.summary import secret_values, summary
from bridge.settings.warnings import warnings

__all__ = [
    "Settings",
    "apply_without_restart",
    "diff",
    "load",
    "secret_values",
    "summary",
    "unused_variables",
    "warnings",
]
