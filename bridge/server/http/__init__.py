"""HTTP: listeners, limits, requests and responses, used by all handlers."""
