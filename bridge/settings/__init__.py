"""The settings: one TOML file, the environment and secret files, read and checked at once into one frozen value.

It must not know what the settings are used for: rooms get the values they need from gateway.py.
"""

from bridge.settings.advice import advice
from bridge.settings.changes import changes
from bridge.settings.environment import unused_variables
from bridge.settings.load import load
from bridge.settings.model import Settings
from bridge.settings.restart import until_restart
from bridge.settings.secret_values import secret_values
from bridge.settings.summary import summary

__all__ = ["Settings", "advice", "changes", "load", "secret_values", "summary", "until_restart", "unused_variables"]
