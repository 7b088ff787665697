"""Stand-ins of CodeArts, TestNod and S3 that follow their references, to try the bridge without an account.

They share no code with the bridge but `protocols`: a common implementation would hide errors of both sides.
"""
