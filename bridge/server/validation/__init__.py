"""Validate JUnit files in child processes: pool, messages, program of a child, repair and strip."""
