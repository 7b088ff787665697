"""Content codings and archives: decompress streams and list the reports in zip and tar files."""
