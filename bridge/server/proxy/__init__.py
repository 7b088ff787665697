"""What CI asks of CodeArts through the bridge: passed on as it came, under the rights that belong to it.

It knows neither the worker nor what an answer means to a build, but for two hints that it leaves in the ledger.
"""
