"""The core: values and decisions, without I/O, clock, chance or concurrency."""
