"""A story of uploads, owners, outages and time over a real ledger, and what must hold at every moment of it."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bridge.domain.build import UNSETTLED, BuildState, DeliveryState, DeliveryTarget
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.intake import ReportReceipt
from bridge.domain.lifecycle.replacement import is_unopened, must_finalize_again
from bridge.store.circuit_breakers import all_breakers
from bridge.store.duplicates import build_key, dedupe_key
from bridge.store.engine.base import Database
from bridge.store.uploads import accept
from tests.support.builders import HOUR, MINUTE, POLICY
from tests.support.fake_clock import FakeClock
from tests.support.ledger import refusal, report, upload
from tests.support.model.outside import Far, Pending, digest_of, route_build_id
from tests.support.model.owner import ROUTES, Door, Owner, Turnstile
from tests.support.model.watch import Watch

JOB = "a" * 32
LATE = b"<testsuite name='late'/>"
QUIET_TURNS = 60  # of the event loop: longer than any chain of tasks in a visit takes to come to its next call
BOUND = 600  # turns within which all ends once all upstreams work: each reconciles a build or moves the clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """One report whose upload was answered "success"."""

    build_no: int
    node_id: str
    name: str
    body: bytes

    @property
    def key(self) -> bytes:
        return dedupe_key(node_id=self.node_id, name=self.name, received_sha256=digest_of(self.body))


class Story:
    """Two owners beside each other, one ledger, and the world around them."""

    def __init__(self, database: Database, clock: FakeClock, folder: Path, *, has_codearts: bool) -> None:
        self.clock = clock
        self.watch = Watch()
        self.far = Far(clock=clock, has_codearts=has_codearts)
        self._policy = replace(
            POLICY, has_archive=False, has_codearts=has_codearts, give_up_after=2 * HOUR, max_finalize_delay=10 * MINUTE
        )
        self._database = database
        self._folder = folder
        self._turnstile = Turnstile()
        self._counter = self._door()
        self._owners = 0
        self.owners = [self._owner(), self._owner()]
        self.accepted: list[Sent] = []

    def _door(self) -> Door:
        return Door(self._database, self.watch, self._turnstile)

    def _owner(self) -> Owner:
        self._owners += 1
        return Owner(f"owner-{self._owners}", self._door(), self.clock, self._policy, self.far, self._folder)

    # -- what may happen -----------------------------------------------------------------------------------------

    async def upload(self, sent: Sent, *, complete: bool) -> None:
        """Let CI send a report, for the first time or again."""
        if sent.build_no not in {known.build_no for known in self.accepted}:  # one that was forgotten stays so
            self.far.ended.setdefault(build_key(JOB, sent.build_no), False)
        before = self._state_of(sent)
        item = upload(
            report(sent.name, sent.body, node_id=sent.node_id), build_no=sent.build_no, job_id=JOB, complete=complete
        )
        (receipt,) = (await self._counter.write(accept, item)).receipts
        if sent not in self.accepted:
            assert receipt is ReportReceipt.NEW
            self.accepted.append(sent)
        else:
            assert receipt is (ReportReceipt.REQUEUED if before == DeliveryState.DEAD else ReportReceipt.DUPLICATE)
        assert self._state_of(sent) == (before if receipt is ReportReceipt.DUPLICATE else DeliveryState.PENDING)

    async def refuse(self, build_no: int) -> None:
        """Let CI send what is no report."""
        await self._counter.write(accept, upload(build_no=build_no, job_id=JOB, rejections=(refusal(),)))

    async def visit(self, number: int) -> None:
        """Let an owner visit what is due, in every route."""
        for route in ROUTES:
            self.owners[number].begin_visit(route)

    async def begin(self, number: int, chore: str) -> None:
        """Let an owner `probe` open breakers, or `clean` up."""
        owner = self.owners[number]
        owner.begin_probes() if chore == "probe" else owner.begin_cleaning()

    async def crash(self, number: int) -> None:
        """End an owner as a kill would, and start another one in its place."""
        await self.owners[number].end()
        self.owners[number] = self._owner()

    async def thaw(self, number: int) -> None:
        """Let an owner go on: what it was about to write comes first, and then it sees what time it is."""
        self.owners[number].thaw()
        await self.settle()
        self.owners[number].notice()
        await self.settle()

    def pending(self) -> list[Pending]:
        """Return the calls that wait for an answer."""
        return [call for owner in self.owners for call in owner.outside.pending]

    async def settle(self) -> None:
        """Return when every owner waits for an answer, for time, or at its door."""
        quiet = 0
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet += 1
            if not self._turnstile.idle.is_set():
                await self._turnstile.idle.wait()
                quiet = 0

    # -- what must hold ------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check the promises. The watch has already checked each single write."""
        seen = self.watch.seen
        for error in self.watch.broken:
            raise error
        assert [error for owner in self.owners for error in owner.errors] == []
        ids = {row.key: row.id for row in seen.builds.values()}
        expected = {(ids[build_key(JOB, sent.build_no)], sent.key) for sent in self.accepted}
        assert {(row.build_id, row.dedupe_key) for row in seen.reports.values()} == expected, (
            "reports are not those accepted"
        )
        self._check_arrivals()
        self._check_finalizes()
        for row in seen.builds.values():
            if row.due_at is None and row.lease_until is None:
                self._check_rest(row.id)

    def _check_arrivals(self) -> None:
        for build_id, nod in self.far.nods.items():
            received = nod.received(self._newest_build_id(build_id))
            arrived = Counter(digest for key in received for digest in set(self.far.stored[build_id, key]))
            assert all(count == 1 for count in arrived.values()), "a report has arrived twice"
            for sent in self.accepted:
                if self._build_id(sent) == build_id and self._state_of(sent) == DeliveryState.DELIVERED:
                    assert arrived[digest_of(sent.body)], "a report is said to be delivered and is not there"

    def _check_finalizes(self) -> None:
        """Look at the runs that were finalized since the last look: their batch was done."""
        now, finalizes = self.clock.now(), self.far.finalizes
        self.far.finalizes = []
        for build in finalizes:
            if build.fencing_token != self.watch.seen.builds[build.id].fencing_token:
                continue  # a late owner's: the next one finalizes again
            # Not those that were requested after the call: of a report that was left pending at the end of the delay.
            known = [row for row in self.watch.seen.registrations.values() if row.id in build.registrations]
            assert not [row for row in known if row.state in ("requested", "registered")], (
                "finalized before the last PUT"
            )
            assert not build.unsettled()
            if build.pending(DeliveryTarget.TESTNOD) and not (is_unopened(build) or must_finalize_again(build)):
                assert build.state == "ended", "confirmed while a report is pending"
                assert build.finalize_hold_since is not None
                assert now >= build.finalize_hold_since + self._policy.max_finalize_delay, (
                    "finalized while a report is pending"
                )

    def _check_rest(self, build_id: int) -> None:
        """Check that a build without a next turn has nothing left to be done."""
        seen = self.watch.seen
        row = seen.builds[build_id]
        assert row.state in (BuildState.FINALIZED, BuildState.NO_RUN), f"a build that is {row.state} is never due"
        assert row.report_seq == row.finalized_seq
        states = {each.state for each in seen.deliveries.values() if each.build_id == build_id}
        assert DeliveryState.PENDING not in states, "a build with a pending report is never due"
        lives = [each for each in seen.registrations.values() if each.build_id == build_id]
        newest = max([each.generation for each in lives], default=1)
        assert not [each for each in lives if each.state in UNSETTLED and each.generation == newest], (
            "a build with an unsettled registration is never due"
        )

    def _state_of(self, sent: Sent) -> str | None:
        seen = self.watch.seen
        keys = {row.id: row.key for row in seen.builds.values()}
        mine = build_key(JOB, sent.build_no)
        ids = [row.id for row in seen.reports.values() if keys[row.build_id] == mine and row.dedupe_key == sent.key]
        return next((str(row.state) for row in seen.deliveries.values() if row.report_id in ids), None)

    def _newest_build_id(self, build_id: str) -> str:
        """Return the build_id of the newest run of the build whose first one had this one."""
        parameters = (row.run_parameters for row in self.watch.seen.builds.values())
        known = [each["build_id"] for each in parameters if each]
        return next(each for each in known if route_build_id(each) == build_id)

    def _build_id(self, sent: Sent) -> str:
        return f"codearts-{JOB}-{sent.build_no}"

    # -- the end -------------------------------------------------------------------------------------------------

    async def end_well(self) -> None:
        """Let all upstreams work from now on: in bounded steps everything is delivered and every run finalized."""
        far = self.far
        far.arrives, far.slow = dict.fromkeys(far.arrives, True), False
        far.ended = dict.fromkeys(far.ended, True)
        for number in range(len(self.owners)):
            await self.thaw(number)
        await self._until_at_rest()
        for sent in [sent for sent in self.accepted if self._state_of(sent) == DeliveryState.DEAD]:
            await self.upload(sent, complete=False)
        await self._until_at_rest()
        for build_no in {sent.build_no for sent in self.accepted}:  # what comes when all had come to its end
            await self.upload(Sent(build_no=build_no, node_id="late", name="a.xml", body=LATE), complete=False)
            self.check()
        await self._until_at_rest()
        seen = self.watch.seen
        assert {row.state for row in seen.deliveries.values()} <= {DeliveryState.DELIVERED}
        for row in seen.builds.values():
            self._check_rest(row.id)
            self._check_runs(row)

    async def _until_at_rest(self) -> None:
        for _ in range(BOUND):
            await self._answer_all()
            await self.visit(0)
            await self.begin(0, "probe")
            await self.settle()
            self.check()
            if self.pending():
                continue
            at = await self._next_turn()
            if at is None:
                return
            if at > self.clock.now():
                self.clock.set(at)
                self.far.forget_slow()
        raise AssertionError(f"It never comes to rest: {self.watch.seen.builds}")

    async def _answer_all(self) -> None:
        while calls := self.pending():
            for call in calls:
                call.hear(0)
            await self.settle()
            self.check()

    async def _next_turn(self) -> int | None:
        """Return when something is to be done next: a turn, or the end of the lease or of an outage before it."""
        builds = [row for row in self.watch.seen.builds.values() if row.due_at is not None]
        if not builds:
            return None
        breakers: CircuitBreakers = await self._counter.read(all_breakers)
        probes = [breaker.probe_at for breaker in breakers.known.values() if (breaker.probe_at or 0) > self.clock.now()]
        return min([*(max(row.due_at, row.lease_until or 0) for row in builds), *probes])

    def _check_runs(self, row: Any) -> None:
        nod = self.far.nods.get(f"codearts-{row.key.replace('/', '-')}")
        if nod is not None:
            registrations = self.watch.seen.registrations.values()
            known = {each.upload_id for each in registrations if each.build_id == row.id}
            nod.check_pending(known, row.run_parameters["build_id"], stuck=row.stuck_reason)
