"""`bridge check-config --online`: one harmless question to each configured upstream."""
