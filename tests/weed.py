"""The S3 server of the tests: one process serves a whole session of them, each below a prefix of its own."""

import signal
import uuid

from bridge.demo.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server

__all__ = ["ACCESS_KEY", "BUCKET", "REGION", "SECRET_KEY", "Weed", "new_prefix"]


class Weed(S3Server):
    """The server, which may be made to hang."""

    def pause(self):
        """Let it accept connections and answer nothing, until `resume`."""
        self.signal(signal.SIGSTOP)

    def resume(self):
        """Let it answer again."""
        self.signal(signal.SIGCONT)


def new_prefix() -> str:
    """Return a prefix below which nothing lies."""
    return f"{uuid.uuid4().hex}/"
