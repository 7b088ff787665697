"""`bridge move` moves the ledger to another database, and its spool to another place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.app.config_mapping import to_outbound_proxy
from bridge.app.resources import BackendContext, open_spool
from bridge.clock import Clock, SystemClock
from bridge.commands.config import read_settings, restrict_umask
from bridge.commands.console import print_note, print_result
from bridge.domain.text_format import counted
from bridge.errors import MoveRejected
from bridge.settings.model import Settings
from bridge.store.engine.postgres_url import is_postgres, shown_url
from bridge.store.ledger import SQLITE, path_of
from bridge.store.move import MoveResult, Spools, move, open_side, undo

SHOWN_KEYS = 5


def move_ledger(
    path: Path, *, source: str, target: str, source_spool: str | None, target_spool: str | None, take_back: bool
) -> None:
    """Move the ledger at the URL `source` to `target`, or take such a move back.

    The spool goes from `source_spool` (None: store.spool of the settings in `path`) to `target_spool` (None: both
    ledgers use the same one). Account and endpoint of S3 are those of the settings.

    Raise MoveRejected or LedgerError if that is not possible; the source can then be used as before, or the move goes
    on when it is run again.
    """
    settings = read_settings(path)
    for option, url in (("--from", source), ("--to", target)):
        if not is_postgres(url) and not url.startswith(SQLITE):
            raise MoveRejected(f"{option}: write sqlite:///folder/bridge.db or postgresql://user@host/database.")
    if _shown(source) == _shown(target):
        raise MoveRejected("--from and --to name the same ledger. Name another database as --to.")
    restrict_umask()
    spools = None if target_spool is None else (source_spool or settings.store.spool, target_spool)
    if spools is not None and spools[0] == spools[1]:
        raise MoveRejected("--from-spool and --to-spool name the same spool. Leave both out, or name another one.")
    result = asyncio.run(_move(settings, source, target, spools, take_back=take_back))
    _print(result, source, target, spools, take_back=take_back)


def _shown(url: str) -> str:
    return shown_url(url) if is_postgres(url) else str(path_of(url).absolute())


async def _move(
    settings: Settings, source: str, target: str, spools: tuple[str, str] | None, *, take_back: bool
) -> MoveResult:
    clock = SystemClock()
    async with (
        open_side(source, clock, create=False) as ours,
        open_side(target, clock, create=not take_back) as theirs,
        _open_spools(settings, spools, clock) as opened,
    ):
        if take_back:
            return await undo(ours, theirs, opened, print_note)
        return await move(ours, theirs, opened, clock, print_note)


@asynccontextmanager
async def _open_spools(settings: Settings, spools: tuple[str, str] | None, clock: Clock) -> AsyncIterator[Spools]:
    if spools is None:
        yield None
        return
    around = BackendContext(
        clock=clock,
        outbound_proxy=await asyncio.to_thread(to_outbound_proxy, settings),
        observer=lambda *_: None,
        shared=True,
        now=clock.now,
        dated=lambda *_: None,
    )
    source, target = (
        settings.model_copy(update={"store": settings.store.model_copy(update={"spool": spool})}) for spool in spools
    )
    async with open_spool(source, around) as ours, open_spool(target, around) as theirs:
        yield ours, theirs


def _print(result: MoveResult, source: str, target: str, spools: tuple[str, str] | None, *, take_back: bool) -> None:
    if result.was_done:
        print_result(f"{_shown(source)} was moved to {_shown(target)} before. Set store.url to the new ledger.")
        return
    used, left = (source, target) if take_back else (target, source)
    if result.rows:
        print_result(
            f"Copied {counted(sum(result.rows.values()), 'row')} to {_shown(used)}, among them "
            f"{counted(result.rows['builds'], 'build')} and {counted(result.rows['reports'], 'report')}. "
            "Both ledgers were compared and are equal."
        )
    if spools is not None:
        place = spools[0] if take_back else spools[1]
        print_result(
            f"All {counted(result.blobs, 'file')} of the spool {'is' if result.blobs == 1 else 'are'} in {place}."
        )
    if result.missing:
        shown = ", ".join(result.missing[:SHOWN_KEYS])
        print_note(
            f"{counted(len(result.missing), 'file')} of the spool had been lost before: {shown}. "
            "Their reports cannot be delivered; upload them again."
        )
    changes = f"store.url to {_shown(used)}"
    if spools is not None:
        changes += f" and store.spool to {spools[0 if take_back else 1]}"
    print_result(f"No gateway starts on {_shown(left)} any more. Set {changes}, then start the gateway.")
    if not take_back:
        print_note("Until the first upload, `bridge move --undo` with the same options takes the move back.")
