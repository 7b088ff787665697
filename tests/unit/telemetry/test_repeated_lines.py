import pytest
from structlog.testing import capture_logs

from bridge.telemetry.repeated_lines import MAX_ADDRESSES, MAX_LINES, OTHERS, WINDOW_SECONDS, RepeatedLines
from tests.support.loop_clock import LoopClock

MANY = 1000


@pytest.fixture
async def clock():
    return LoopClock()


async def summaries(clock, lines):
    """Let a window end; return what was summed up."""
    before = len(lines)
    await clock.pass_until(lambda: len(lines) > before, WINDOW_SECONDS)
    return [(line["omitted"], line["address"], line["lines"]) for line in lines[before:]]


async def test_the_first_lines_of_an_address_are_written_and_the_others_summed_up(clock):
    repeated = RepeatedLines()
    with capture_logs() as lines:
        written = sum(repeated.may_write("request_malformed", "192.0.2.1") for _ in range(MANY))
        assert repeated.may_write("request_malformed", "192.0.2.2")
        assert repeated.may_write("upload_rejected", "192.0.2.1")
        assert await summaries(clock, lines) == [("request_malformed", "192.0.2.1", MANY - MAX_LINES)]
        assert repeated.may_write("request_malformed", "192.0.2.1")  # of the next window
    assert written == MAX_LINES


async def test_lines_of_many_addresses_are_bounded(clock):
    repeated = RepeatedLines()
    with capture_logs() as lines:
        written = sum(repeated.may_write("request_malformed", f"192.0.2.{number}") for number in range(MANY))
        assert await summaries(clock, lines) == [("request_malformed", OTHERS, MANY - MAX_ADDRESSES - MAX_LINES)]
    assert written == MAX_ADDRESSES + MAX_LINES
