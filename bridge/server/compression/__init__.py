"""Content codings and archives of uploads."""
