"""What a build waits for, as part of a sentence: which upstream, since when, and when it is tried next.

It knows neither the ledger nor which case of why.py asks.
"""

from bridge.domain.build import Build, BuildState, Delivery, RegistrationState, Target
from bridge.domain.gates import CODEARTS, TESTNOD, Gate, Gates, register_gate, storage_gate
from bridge.domain.policy import DESCRIBE_FOR
from bridge.domain.quality import Quality, QualityState
from bridge.domain.words import counted, lasting, said, span


def away(name: str, gate: Gate, now: int) -> str:
    """Say since when the upstream behind a closed gate has been away, and why."""
    return f"{name} has been away {lasting(now - (gate.failing_since or now))} ({said(gate.reason)})"


def delivery_wait(build: Build, gates: Gates, now: int) -> str:
    """Say what the reports of `build` that are owed to TestNod, at least one, wait for, and until when."""
    waits_for, next_try_at = (
        _away_for_delivery(build, gates, now) or _line(build) or _record(build, gates, now) or _next_call(build, now)
    )
    return f"{waits_for}; the next try is {_when(next_try_at, now)}"


def finalize_wait(build: Build, gates: Gates, now: int) -> str:
    """Say what the run of a `build` that is delivered but not finalized waits for."""
    if build.state is BuildState.OPEN:
        return f"when the build has ended: {_last_look(build, gates, now)}"
    gate = gates.closed(TESTNOD)
    if gate is not None:
        return f"when TestNod can be asked: {away('TestNod', gate, now)}"
    if build.quality is not None and build.quality.state is QualityState.WAITING:
        return f"when CodeArts Check has answered: {_check(build.quality, now)}"
    if build.finalize_failing_since is not None:
        failing = lasting(now - build.finalize_failing_since)
        return f"as soon as TestNod takes it: finalize has been failing {failing} ({said(build.last_error)})"
    result = f" with {said(build.build_result)}" if build.build_result else ""
    return f"in a moment: the build ended{result} {span(now - (build.ended_at or now))} ago"


def last_status(build: Build, now: int) -> str:
    """Say when the newest run of `build` was finalized, what TestNod called it last, and whether it is asked again."""
    asked = (
        "is asked no more" if build.confirm_until is None else f"the next look is {_when(build.confirm_due_at, now)}"
    )
    ago = span(now - (build.finalized_at or now))
    return f"was finalized {ago} ago; TestNod last called it {said(build.runs[-1].status)} and {asked}"


def quality_said(quality: Quality | None) -> str:
    """Say after what became of a build what became of asking CodeArts Check about it; empty where it was not."""
    if quality is None or quality.state is QualityState.WAITING:
        return ""
    if quality.state is QualityState.ANSWERED:
        return f"; CodeArts Check: {said(quality.summary)}"
    return f"; CodeArts Check gave no report in time: {said(quality.summary)}"


def _check(quality: Quality, now: int) -> str:
    failed = f"{counted(quality.attempts, 'call')} came to nothing ({said(quality.summary)}), and "
    because = failed if quality.attempts else ""
    return f"{because}it is waited for at most {span(max(0, quality.until - now))} more"


def _away_for_delivery(build: Build, gates: Gates, now: int) -> tuple[str, int] | None:
    route = build.pin.route if build.pin else ""
    needed = (
        ("TestNod", TESTNOD),
        ("TestNod's register", register_gate(route)),
        ("TestNod's storage", storage_gate(route)),
    )
    for name, gate_name in needed:
        gate = gates.closed(gate_name)
        if gate is not None:
            return away(name, gate, now), gate.probe_at or now
    return None


def _line(build: Build) -> tuple[str, int] | None:
    """Say that it lets another build go first; the time is when it waits for that one no longer."""
    if build.line_until is None:
        return None
    return (
        "an earlier build of the same job opens its run first, as TestNod compares runs in their order",
        build.line_until,
    )


def _record(build: Build, gates: Gates, now: int) -> tuple[str, int] | None:
    """Say what keeps record-info from being known, while the first register still waits for it."""
    until = build.accepted_at + DESCRIBE_FOR
    if build.pin is not None or build.described_at is not None or now >= until:
        return None
    patience = f"and is waited for at most {span(until - now)} more"
    gate = gates.closed(CODEARTS)
    if gate is not None:
        return f"{away('CodeArts', gate, now)} {patience}", min(gate.probe_at or now, until)
    if not build.describe_due_at:  # not asked yet, or nobody to ask
        return None
    because = f" ({said(build.last_error)})" if build.last_error else ""
    return f"CodeArts has not described the build yet{because} {patience}", min(build.describe_due_at, until)


def _next_call(build: Build, now: int) -> tuple[str, int]:
    calls = ((*_call(build, delivery), delivery) for delivery in build.owed(Target.TESTNOD))
    at, upstream, delivery = min(calls, key=lambda call: call[0])
    if delivery.unread is not None:
        failing = lasting(now - (delivery.unread_since or now))
        return f"the bridge's own spool has not returned the bytes of a report {failing} ({said(delivery.unread)})", at
    if delivery.last_error is None:
        return f"nothing has failed so far, {upstream} comes next", at
    return f"{upstream} comes next after a failure ({said(delivery.last_error)})", at


def _call(build: Build, delivery: Delivery) -> tuple[int, str]:
    for life in build.unsettled():
        if life.delivery_id == delivery.id:
            return life.due_at, "TestNod's storage" if life.state is RegistrationState.NAMED else "TestNod"
    return delivery.due_at, "TestNod"


def _last_look(build: Build, gates: Gates, now: int) -> str:
    gate = gates.closed(CODEARTS)
    if gate is not None:
        return away("CodeArts", gate, now)
    if build.unknown_since is not None:
        return f"CodeArts has known no such build {lasting(now - build.unknown_since)}"
    if build.polled_at is None:
        return "nobody has said so yet"
    return f"CodeArts was asked {span(now - build.polled_at)} ago"


def _when(at: int, now: int) -> str:
    return f"in {span(at - now)}" if at > now else "due now"
