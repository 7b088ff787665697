"""`bridge backfill`: sends past builds through the gateway, oldest first."""
