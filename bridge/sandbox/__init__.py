"""Stand-ins of CodeArts, TestNod and S3 that behave as their references say, to try the bridge without an account.

They must not know the bridge: what both sides share would hide what either got wrong.
"""
