"""TestNod's submission API, served by the bridge."""
