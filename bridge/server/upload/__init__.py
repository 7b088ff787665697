"""One upload from its first byte to its answer: read, checked, kept, written into the ledger."""
