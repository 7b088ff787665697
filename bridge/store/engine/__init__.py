"""The engines that hold the ledger: SQLite and PostgreSQL behind one protocol (base.Database)."""
