"""The gateway: start, drain, stop, and the composition of its parts."""
