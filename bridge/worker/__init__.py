"""The carriers: visits to builds, the probes of closed gates, the janitor, and the supervisor of these loops."""
