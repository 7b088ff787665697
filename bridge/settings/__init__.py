"""The settings: one TOML file, the environment and secret files, validated together into one frozen value."""

from bridge.settings.environment import unused_variables
from bridge.settings.load import load
from bridge.settings.model import Settings
from bridge.settings.summary import apply_without_restart, diff, secret_values, summary
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
