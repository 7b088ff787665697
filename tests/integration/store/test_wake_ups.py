"""No wake-up is ever lost: whatever uploads and visits do at the same time, work that is there has its turn."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from bridge.domain.build import UNSETTLED, Build, DeliveryState, Registration, RegistrationState
from bridge.domain.changes import Change, apply, set_delivery, set_registration
from bridge.domain.intake import ReportReceipt
from bridge.store.leases import LeasedBuild
from bridge.store.schema import builds
from tests.support.fake_clock import FakeClock
from tests.support.ledger import LEASE_US, Ledger, asked, dead, report

PAUSES_US = (0, 1, LEASE_US)  # in the same microsecond, just after, and when every lease has run out
ENDS = {
    RegistrationState.REQUESTED: RegistrationState.LOST,
    RegistrationState.FAILURE_UNREPORTED: RegistrationState.FAILED,
}


@dataclass
class Worker:
    """One worker as the ledger meets it: it knows what its claim returned and what it wrote since."""

    visit: LeasedBuild | None = None
    build: Build | None = None
    asked_for: list[tuple[Build, Registration]] = field(default_factory=list)

    def stop(self) -> None:
        self.visit = self.build = None


def unfinished(build: Build) -> bool:
    """Return whether a reconciler with this state of a build has to plan again."""
    owed = any(delivery.state is DeliveryState.PENDING for delivery in build.deliveries.values())
    return owed or any(life.state in UNSETTLED for life in build.registrations.values())


class Story:
    """One interleaving of uploads and two workers; every step takes two numbers, 0 or 1."""

    def __init__(self, ledger: Ledger, clock: FakeClock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.workers = (Worker(), Worker())
        self.news: set[str] = set()  # keys of builds for which something came that no claim has seen
        self.completed: set[int] = set()

    async def upload(self, build_no: int, name: int) -> None:
        receipts = await self.ledger.accept(report(f"{name}.xml"), build_no=build_no)
        if receipts != (ReportReceipt.DUPLICATE,):
            self._came(build_no)

    async def complete(self, build_no: int, _: int) -> None:
        await self.ledger.accept(build_no=build_no, complete=True)
        if build_no not in self.completed:
            self.completed.add(build_no)
            self._came(build_no)

    async def pause(self, one: int, other: int) -> None:
        self.clock.advance(PAUSES_US[one + other])

    async def claim(self, number: int, _: int) -> None:
        visit = await self.ledger.claim(owner=str(number))
        if visit is not None:
            self.news.discard(f"{visit.build.job_id}/{visit.build.build_no}")
            self.workers[number].visit, self.workers[number].build = visit, visit.build

    async def ask(self, number: int, _: int) -> None:
        worker = self.workers[number]
        if worker.build is not None and worker.build.deliveries:
            delivery = next(iter(worker.build.deliveries.values()))
            for change in await self._write(worker, asked(delivery, fencing_token=worker.build.fencing_token)):
                worker.asked_for.append((worker.build, change.registration))

    async def settle(self, number: int, delivers: int) -> None:
        """Let all that the worker knows of come to an end."""
        worker = self.workers[number]
        if worker.build is not None:
            owed = [one for one in worker.build.deliveries.values() if one.state is DeliveryState.PENDING]
            lives = [one for one in worker.build.registrations.values() if one.state in UNSETTLED]
            await self._write(
                worker,
                *(set_delivery(one, state=DeliveryState.DELIVERED) if delivers else dead(one) for one in owed),
                *(set_registration(one, state=ENDS[one.state]) for one in lives),
            )

    async def answer_late(self, number: int, _: int) -> None:
        asked_for = self.workers[number].asked_for
        while asked_for:
            build, life = asked_for.pop()
            if await self.ledger.late_ids(build, life):
                self._came(build.build_no)

    async def release(self, number: int, _: int) -> None:
        """End a visit as plan() would: without another turn where all that it knows of has ended."""
        worker = self.workers[number]
        if worker.visit is not None:
            until = self.clock.now() + 10 * LEASE_US if unfinished(worker.build) else None
            await self.ledger.release(worker.visit, until)
            worker.stop()

    async def check(self) -> None:
        for row in await self.ledger.rows(select(builds)):
            if unfinished(await self.ledger.build(row.id)):
                assert row.due_at is not None, "there is work, and the build is never due again"
            if row.key in self.news:
                assert row.due_at is not None, "a report came, and the build is never due"
                assert row.due_at <= self.clock.now(), "something came, and it waits for another reason's turn"

    def _came(self, build_no: int) -> None:
        self.news.add(f"{'a' * 32}/{build_no}")

    async def _write(self, worker: Worker, *changes: Change) -> tuple[Change, ...]:
        written = await self.ledger.record(worker.build, *changes)
        if written is None:
            worker.stop()
            return ()
        worker.build = apply(worker.build, written)
        return written


STEPS = (
    Story.upload,
    Story.complete,
    Story.pause,
    Story.claim,
    Story.ask,
    Story.settle,
    Story.answer_late,
    Story.release,
)


BEGUN = [(Story.upload, 0, 0), (Story.claim, 0, 0)]
TAKEN_OVER = [*BEGUN, (Story.ask, 0, 0), (Story.pause, 1, 1), (Story.claim, 1, 0)]


def test_work_always_has_a_turn_and_news_have_it_at_once(backend):
    @settings(max_examples=backend.examples, deadline=None)
    @example(steps=[*BEGUN, (Story.upload, 0, 1), (Story.release, 0, 0)])
    @example(steps=[*BEGUN, (Story.complete, 0, 0), (Story.release, 0, 0)])
    @example(steps=[*BEGUN, (Story.settle, 0, 0), (Story.upload, 0, 0), (Story.release, 0, 0)])
    @example(steps=[*TAKEN_OVER, (Story.settle, 1, 1), (Story.release, 1, 0), (Story.answer_late, 0, 0)])
    @example(steps=[*TAKEN_OVER, (Story.upload, 0, 1), (Story.release, 0, 0), (Story.release, 1, 0)])
    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(STEPS), st.integers(0, 1), st.integers(0, 1)),
            min_size=4,
            max_size=24,
        )
    )
    def holds(steps):
        asyncio.run(check_story(backend, steps))

    holds()


async def check_story(backend, steps):
    """Take the steps, and check after each one that no work waits without a turn."""
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        story = Story(Ledger(database), clock)
        for step, one, other in steps:
            await step(story, one, other)
            await story.check()
