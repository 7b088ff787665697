"""Who on this machine may read what a command writes: its user and group, as these are set up, and nobody else.

It must not know what is written.
"""

import os

OTHERS = 0o007
"""Reports, and URLs that are still good, lie in the ledger and the spool."""


def keep_from_others() -> None:
    """Let no file that this process makes from now on be open to other users; what its group may stays as it is."""
    os.umask(os.umask(OTHERS) | OTHERS)
