"""Authentication of callers: the bridge's tokens, IAM's tokens, AK/SK signatures."""
