"""Where the ledger lives: SQLite or PostgreSQL behind the same two doors. It knows no table."""
