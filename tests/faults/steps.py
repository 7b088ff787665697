"""The named steps of a report's life, and a death by SIGKILL before or after the n-th time that one is taken.

It finds the steps in the product by their names, from outside: nothing in the product knows of it. `find` fails for a
step that has moved, so that a kill never hits nothing in silence.
"""

import functools
import importlib
import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from tests.faults.replacing import replace_everywhere

When = Literal["before", "after"]

_family: list[int] = []  # processes that die before this one

STEPS = {
    "spool: begin a blob": "bridge.store.blobs.disk:DiskSpool.create",
    "spool: blob durable": "bridge.store.blobs.disk:DiskWriter.commit",
    "check a file": "bridge.server.validation.pool:ValidationPool.validate_file",
    "ledger: accept rows": "bridge.store.uploads:accept",
    "commit an upload": "bridge.app.gateway:Gateway._accept",
    "answer the upload": "bridge.server.upload.handler:_response",
    "claim": "bridge.store.leases:claim",
    "request (row requested)": "bridge.worker.report_upload:ReportUploader._add_registration",
    "register": "bridge.client.testnod:TestNod.register",
    "ids written": "bridge.worker.report_upload:ReportUploader._record_registered",
    "PUT": "bridge.client.presigned_put:PresignedUploader.put",
    "PUT: a piece": "bridge.client.presigned_put:_CheckedBody.__anext__",
    "stored written": "bridge.worker.report_upload:ReportUploader._record_stored",
    "bytes freed": "bridge.store.retention:_release",
    "upload_failed": "bridge.client.testnod:TestNod.upload_failed",
    "poll build-info": "bridge.client.codearts:CodeArts.build_info",
    "finalize": "bridge.client.testnod:TestNod.finalize",
    "record": "bridge.store.fenced_writes:write_if_fenced",
    "release": "bridge.worker.reconcile:BuildReconciler._release",
    "replace a run": "bridge.domain.lifecycle.replacement:replace_run",
}
"""Each name: module, colon, path of the function in it. A batch function's `after` is before its commit."""

STORE = "bridge.store."


def find(step: str) -> tuple[Any, str, Callable[..., Any]]:
    """Return the owner, the name and the function of a step; raise LookupError where the product has none."""
    module, _, path = STEPS[step].partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    try:
        for parent in parents:
            owner = getattr(owner, parent)
        return owner, name, getattr(owner, name)
    except AttributeError as error:
        raise LookupError(f"The step {step!r} is no longer at {STEPS[step]}. Say in STEPS where it is.") from error


def is_in_store(step: str) -> bool:
    """Return whether the ledger's writer may take a step: it imports no other package of the bridge."""
    return STEPS[step].startswith(STORE)


def die_at(step: str, when: When, count: int, *, armed: Path) -> None:
    """Kill this process before or after the `count`-th time (1 is the first) that `step` is taken.

    Only what is taken while the file `armed` is there counts.
    """
    owner, name, function = find(step)
    wrapped = _mortal(function, when, count, armed)
    if isinstance(owner, ModuleType):
        replace_everywhere(owner, name, wrapped)
    else:
        setattr(owner, name, wrapped)


def _mortal(function: Callable[..., Any], when: When, count: int, armed: Path) -> Callable[..., Any]:
    taken = 0

    def now() -> bool:
        nonlocal taken
        if not armed.exists():
            return False
        taken += 1
        return taken == count

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            last = now()
            if last and when == "before":
                die()
            result = await function(*args, **kwargs)
            if last:
                die()
            return result

        return asynchronous

    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        last = now()
        if last and when == "before":
            die()
        result = function(*args, **kwargs)
        if last:
            die()
        return result

    return synchronous


def die_with(pid: int) -> None:
    """Let the process `pid` end whenever this one dies: the ledger's writer takes its gateway with it."""
    _family.append(pid)


def die() -> None:
    """End this process as a power cut would: nothing of it runs any more."""
    for pid in (*_family, os.getpid()):
        os.kill(pid, signal.SIGKILL)
