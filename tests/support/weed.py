"""The S3 server of the tests: one process for a session, and a prefix for each test."""

import signal
import uuid

from bridge.demo.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server

__all__ = ["ACCESS_KEY", "BUCKET", "REGION", "SECRET_KEY", "Weed", "new_prefix"]


class Weed(S3Server):
    """The server, with methods that make it hang."""

    def pause(self):
        """Let it accept connections and answer nothing, until `resume`."""
        self.signal(signal.SIGSTOP)

    def resume(self):
        """Let it answer again."""
        self.signal(signal.SIGCONT)


def new_prefix() -> str:
    """Return a prefix below which nothing lies."""
    return f"{uuid.uuid4().hex}/"
