"""Reverse proxy: forward calls of CI to CodeArts, with the credentials of the caller or of the bridge."""
