"""Calls to TestNod, its storage and CodeArts over guarded sessions; every failure of the network becomes an outcome.

Nothing here knows the ledger, the spool or the life of a build, nor decides whether to try again.
"""
