"""The upstreams' protocols as pure functions: arguments to requests, HTTP responses to outcomes of the core."""
