"""python -m tests.chaos [--seed N] [--seconds S] [--postgres] [--s3] [--replicas N]: a run of chance, and its verdicts.

It exits with 0 only where every invariant holds. Else the folder with logs, ledger and spool stays, and is named.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.plan import Options
from tests.chaos.run import play
from tests.support.corpus import read_corpus


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="what all chance is drawn from; a new one without it")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults go on; the drain comes after")
    parser.add_argument("--postgres", action="store_true", help="the ledger in a real PostgreSQL that is restarted")
    parser.add_argument("--s3", action="store_true", help="the spool in a real S3 that goes away now and then")
    parser.add_argument(
        "--replicas", type=int, default=1, help="gateways on one ledger; more than one needs --postgres"
    )
    parser.add_argument("--limits", action="store_true", help="CodeArts limits the calls of each API")
    given = parser.parse_args()
    if given.replicas > 1 and not given.postgres:
        parser.error("several gateways need --postgres")
    options = Options(
        seed=secrets.randbelow(2**31) if given.seed is None else given.seed,
        seconds=given.seconds,
        postgres=given.postgres,
        s3=given.s3,
        replicas=given.replicas,
        limits=given.limits,
    )
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="bridge-chaos-"))
    outcome = asyncio.run(play(options, read_corpus(), folder))
    print("\n".join(outcome.lines()))
    if outcome.holds:
        shutil.rmtree(folder)
    else:
        print(f"what is left of it lies in {folder}")
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    main()
