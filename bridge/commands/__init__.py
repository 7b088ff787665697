"""The commands, one module each: what `bridge NAME` does once its arguments are read.

They must not hold rules of their own: what a command does is done by the room that knows how.
"""

CONFIG_VARIABLE = "BRIDGE_CONFIG"
"""Names the settings file where --config does not."""
