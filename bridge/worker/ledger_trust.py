"""Collects what speaks for and against the ledger's clock while the gateway runs: `verdict` returns what follows."""

from dataclasses import replace

from bridge.clock import Clock
from bridge.domain.clock_trust import ClockState, ClockTrust, Step, Verdict
from bridge.store.engine.database import Database
from bridge.store.ledger_times import ledger_time, times_in_ledger

SET = Verdict(state=ClockState.STEPPED, reason="The clock was set, and the times in the ledger are corrected first.")


class LedgerTrust:
    """The evidence on the clock of `database`; every question looks at the clock first, so that no step is missed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._trust = ClockTrust.begun(database.now(), clock.steady())
        self._steps: list[Step] = []
        self._corrected_at: int | None = None

    async def begin(self) -> None:
        """Read what the ledger's own times tell; to be called once, before anything is written."""
        await self._database.write(ledger_time, None)  # a shared ledger's time is known from writes
        at_start = await self._database.read(times_in_ledger)
        self._trust = ClockTrust.begun(self._database.now(), self._clock.steady(), at_start)

    def heard(self, upstream: str, at: int) -> None:
        """Take in that `upstream` answered just now, and that it was `at` (microseconds UTC) by its clock."""
        self._look()
        self._trust = self._trust.heard(upstream, at, self._clock.steady())

    def verdict(self) -> Verdict:
        """Return whether the ledger's clock is trusted now."""
        self._look()
        steady = self._clock.steady()
        awaited = self._steps or self._trust.correction(steady) is not None
        return replace(SET if awaited else self._trust.verdict(steady), corrected_at=self._corrected_at)

    def next_step(self) -> Step | None:
        """Return the step by which the ledger's times are to be corrected next; None if there is none."""
        self._look()
        return self._steps[0] if self._steps else self._trust.correction(self._clock.steady())

    def corrected(self) -> None:
        """Take in that the ledger's times were corrected by the step that `next_step` returned."""
        self._corrected_at = self._database.now()
        if self._steps:
            del self._steps[0]
        else:
            self._trust = self._trust.corrected()

    def _look(self) -> None:
        self._trust, step = self._trust.looked(self._database.now(), self._clock.steady())
        if step is not None:
            self._steps.append(step)
