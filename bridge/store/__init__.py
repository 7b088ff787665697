"""What is durably kept: the ledger, its migrations, and the spool.

It knows neither HTTP nor who asks.
"""
