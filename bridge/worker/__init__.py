"""Delivery: the dispatcher, the reconciler, the upstream calls, and the other background tasks."""
