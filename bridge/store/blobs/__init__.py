"""The spool: report bodies outside the database."""
