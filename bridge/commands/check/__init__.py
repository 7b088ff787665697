"""`bridge check`: validates files as the gateway would, without settings, gateway or network."""
