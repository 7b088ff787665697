"""The commands: what `bridge NAME` does after cli.py has read its options."""

CONFIG_VARIABLE = "BRIDGE_CONFIG"
"""Names the settings file if --config is not given."""
