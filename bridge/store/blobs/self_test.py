"""Whether a folder keeps what is written to it: a small file is written, read back and removed.

`os.access` would not show it: a disk may have no inodes left, be read-only, or refuse to return what it took.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import structlog

PROBE = "probe-"
PROBE_SECONDS = 2.0  # health checks give up after a few
FRESH_SECONDS = 2.0  # a trial is trusted for so long, however often it is asked for
CONTENT = b"The bridge checks by writing and reading this that its spool keeps reports.\n"
REMEDY = "Check the folder that store.spool names, its disk and its rights."

log = structlog.get_logger(__name__)


class SpoolSelfTest:
    """Trials of one folder, at bounded intervals however often it is asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fault: str | None = None
        self._refuses = False  # it refuses a file, which uploads notice by themselves
        self._tried_at: float | None = None
        self._disk: int | None = None  # the file system on which the folder was found first
        self._running: asyncio.Future[None] | None = None
        self._looking = asyncio.Lock()

    async def fault(self) -> str | None:
        """Return why the folder keeps no blobs, or does not return them; None if it does. Paths are not shown."""
        async with self._looking:
            if not self._is_fresh():
                fault = await self._try()
                if fault is not None and fault != self._fault:
                    log.warning("the spool does not work", reason=fault)
                if fault is None and self._fault is not None:
                    log.info("the spool works again")
                self._fault, self._tried_at = fault, time.monotonic()
            return self._fault

    async def keeps_nothing(self) -> bool:
        """Return whether the folder takes files that could not be delivered; one that takes none is another matter."""
        return await self.fault() is not None and not self._refuses

    def _is_fresh(self) -> bool:
        if self._tried_at is None or not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            return False
        return time.monotonic() - self._tried_at < FRESH_SECONDS

    async def _try(self) -> str | None:
        if self._running is None or self._running.done():  # else the disk still hangs in the trial before
            self._running = asyncio.get_running_loop().run_in_executor(None, self._write_and_read)
        self._refuses = False
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await asyncio.shield(self._running)
        except TimeoutError:
            return f"The spool's disk did not answer within {PROBE_SECONDS:.0f} seconds. {REMEDY}"
        except OSError as error:
            self._refuses = True
            return f"The spool cannot be written. {REMEDY} The system says: {error.strerror or type(error).__name__}."
        except _NotKept as error:
            return str(error)
        return None

    def _write_and_read(self) -> None:
        disk = self._root.stat().st_dev
        if self._disk not in (None, disk):
            raise _NotKept(
                "The spool's folder is on another disk than at the start. Mount its disk again, or restart the gateway."
            )
        # Without a name where the file system can: no program sees the file, and a crash leaves nothing.
        with tempfile.TemporaryFile(dir=self._root, prefix=PROBE, buffering=0) as file:
            file.write(CONTENT)
            read = os.pread(file.fileno(), len(CONTENT), 0)
        if read != CONTENT:
            raise _NotKept(f"The spool cannot be read: a file did not come back as it was written. {REMEDY}")
        self._disk = disk


class _NotKept(Exception):
    """The folder took a file and did not keep it, or is not the folder of the start."""
