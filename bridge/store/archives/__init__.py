"""Copies of delivered reports, kept for a while: in a folder, or in S3."""
