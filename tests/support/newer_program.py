"""`python -m tests.support.newer_program MIGRATIONS serve …`: a gateway of a later release, with its migrations."""

import sys
from pathlib import Path

from bridge.cli import main
from bridge.store import ledger

if __name__ == "__main__":
    ledger.SCRIPTS = Path(sys.argv.pop(1))  # type: ignore[misc]
    main()
