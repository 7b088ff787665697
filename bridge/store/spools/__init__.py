"""The bytes of reports that are still owed to somebody: on disk, or in S3."""
