"""What the bridge stores: the ledger with its migrations, the spool and the archive."""
