"""Logs, metrics, and the redaction of secrets in everything that is shown."""
