"""The languages spoken by the bridge, as values in and values out.

Nothing here does I/O or knows the ledger; an answer goes in, an outcome of the core comes out.
"""
