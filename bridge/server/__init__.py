"""What CI reaches, and what people look at: intake, callers, and the answers they get.

It knows the ledger only as what is injected, and nothing of the worker.
"""
