"""The name of a gateway process in leases, log lines and traces."""

import os
import uuid
from typing import Final

MAX_NODE_CHARACTERS: Final = 40
"""Of the machine's name: the owner of a lease has at most 64 characters in the ledger."""


def new_instance() -> str:
    """Return a name that no other gateway has: machine, process id and random digits."""
    return f"{os.uname().nodename[:MAX_NODE_CHARACTERS]}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
