"""Validation of JUnit files in worker processes."""
