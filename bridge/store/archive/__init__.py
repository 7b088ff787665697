"""The archive of delivered reports."""
