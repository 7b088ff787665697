"""The ledger and the worker against a model: whatever comes in whatever order, nothing is lost, doubled or stranded.

More examples by hand: BRIDGE_MODEL_EXAMPLES=2000.
"""

import asyncio
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from bridge.domain.instants import SECOND
from bridge.worker import change_writer
from tests.support.backends import Backend
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.model.story import JOB, Sent, Story

EXAMPLES = os.environ.get("BRIDGE_MODEL_EXAMPLES")
STEPS = 50

owners = st.sampled_from([0, 1])
build_nos = st.integers(1, 2)


class Model(RuleBasedStateMachine):
    """The rules: everything that may happen next."""

    backend: ClassVar[Backend]
    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner(debug=False)
        self._ends = AsyncExitStack()
        self.clock = FakeClock()

    def run(self, work: Coroutine[Any, Any, Any] | None = None) -> None:
        """Let something happen, and all that follows from it by itself; then look."""

        async def happen() -> None:
            if work is not None:
                await work
            await self.story.settle()

        self._runner.run(happen())
        self.story.check()

    @initialize(has_codearts=st.booleans())
    def open(self, has_codearts):
        async def opened() -> Story:
            database = await self._ends.enter_async_context(self.backend.fresh(self.clock))
            return Story(database, self.clock, self.folder, has_codearts=has_codearts)

        self.story = self._runner.run(opened())

    # -- CI --------------------------------------------------------------------------------------------------------

    @rule(
        build_no=build_nos,
        node_id=st.sampled_from(["default", "linux"]),
        name=st.sampled_from(["a.xml", "b.xml"]),
        version=st.integers(0, 1),
        complete=st.sampled_from([False, False, False, True]),
    )
    def upload(self, build_no, node_id, name, version, complete):
        body = f'<testsuite name="{build_no}/{node_id}/{name}/{version}"/>'.encode()
        self.run(self.story.upload(Sent(build_no=build_no, node_id=node_id, name=name, body=body), complete=complete))

    @precondition(lambda self: self.story.accepted)
    @rule(data=st.data())
    def repeat(self, data):
        sent = data.draw(st.sampled_from(self.story.accepted))
        self.run(self.story.upload(sent, complete=False))

    # -- owners ----------------------------------------------------------------------------------------------------

    @rule(number=owners)
    def visit(self, number):
        self.run(self.story.visit(number))

    @rule(number=owners, chore=st.sampled_from(["probe", "clean", "refuse", "crash", "freeze", "thaw"]))
    def chore(self, number, chore):
        match chore:
            case "refuse":
                self.run(self.story.refuse(number + 1))
            case "crash":
                self.run(self.story.crash(number))
            case "freeze":
                self.story.owners[number].freeze()
            case "thaw":
                self.run(self.story.thaw(number))
            case _:
                self.run(self.story.begin(number, chore))

    @precondition(lambda self: self.story.pending())
    @rule(outcome=st.sampled_from([0, 0, 1, 4]))
    def overtaken(self, outcome):
        """A long pause in the middle of a call: it is answered, the lease runs out, and another one takes over."""
        (number, *_) = [number for number in (0, 1) if self.story.owners[number].outside.pending]
        self.story.owners[number].freeze()
        for call in self.story.owners[number].outside.pending:
            call.hear(outcome)
        self.run()
        self.wait(16 * SECOND)
        self.visit(1 - number)

    # -- upstreams -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.story.pending())
    @rule(call=st.integers(0, 7), outcome=st.integers(0, 9))
    def answer(self, call, outcome):
        calls = self.story.pending()
        calls[call % len(calls)].hear(outcome)
        self.run()

    @precondition(lambda self: self.story.pending())
    @rule()
    def answer_well(self):
        for call in self.story.pending():
            call.hear(0)
        self.run()

    @rule(upstream=st.sampled_from(["testnod", "s3", "codearts", "slow"]), works=st.sampled_from([True, True, False]))
    def way(self, upstream, works):
        if upstream == "slow":
            self.story.far.slow = not works
        else:
            self.story.far.arrives[upstream] = works

    @precondition(lambda self: self.story.far.slow_puts)
    @rule()
    def arrive(self):
        self.story.far.slow_puts.pop(0).arrive()
        self.story.check()

    @rule(build_no=build_nos, ended=st.sampled_from([True, True, False, None]))
    def codearts(self, build_no, ended):
        self.story.far.say(f"{JOB}/{build_no}", ended)

    # -- time ------------------------------------------------------------------------------------------------------

    @rule(by=st.sampled_from([SECOND, 10 * SECOND, 16 * SECOND, MINUTE, 6 * MINUTE, HOUR, 49 * HOUR, -SECOND, -MINUTE]))
    def wait(self, by):
        self.clock.advance(by)
        self.story.far.forget_slow()
        self.run()

    # -- the end ---------------------------------------------------------------------------------------------------

    def teardown(self):
        try:
            if hasattr(self, "story"):
                self._runner.run(self._end())
        finally:
            self._runner.run(self._ends.aclose())
            self._runner.close()

    async def _end(self) -> None:
        try:
            await self.story.end_well()
        finally:
            for owner in self.story.owners:
                await owner.end()


def test_nothing_is_lost_doubled_or_stranded_whatever_comes_in_whatever_order(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A write waits for turns of the event loop, not for real time: else a story would move on before it.
    monkeypatch.setattr(change_writer, "LINGER_SECONDS", 0)

    class Told(Model):
        pass

    Told.backend, Told.folder = backend, tmp_path
    examples = int(EXAMPLES) if EXAMPLES else max(3, backend.examples // 8)
    run_state_machine_as_test(
        Told,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
