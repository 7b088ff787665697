"""Repairs of JUnit files: truncation, control characters, encodings."""
