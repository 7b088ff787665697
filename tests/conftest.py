"""What holds for every test."""

import gc
import os
import signal
import traceback
from asyncio import constants
from collections import deque
from itertools import islice

import pytest
from hypothesis import HealthCheck, settings

from tests.support.children import children_of, command_of
from tests.support.open_connections import take_connections_left
from tests.support.weed import Weed

READABLE = 24  # longer bytes say nothing as a test's name

# asyncio's debug mode records the stack at which each future, task and handle is created, which is a large part of what
# tests with sockets cost. The nearest frames are enough to find the code; their lines are read if they are shown.
RECORDED_FRAMES = 3
constants.DEBUG_STACK_DEPTH = RECORDED_FRAMES
_walk_stack = traceback.walk_stack
traceback.walk_stack = lambda frame: islice(_walk_stack(frame), RECORDED_FRAMES)  # for futures and tasks, written in C


def extract(frames, *, limit=None, **_):
    """Do what traceback.StackSummary.extract does, without a look at each source file."""
    if limit is not None:
        frames = islice(frames, limit) if limit >= 0 else deque(frames, maxlen=-limit)
    return traceback.StackSummary(
        traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name, lookup_line=False)
        for frame, line in frames
    )


traceback.StackSummary.extract = extract


# A shell ignores SIGINT for what it starts in the background, and programs of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline for an example is absolute timing: a busy machine must not fail a test.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

FOREIGN = (
    "AWS_",
    "PG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "COLUMNS",
    "FORCE_COLOR",
    "BRIDGE_CONFIG",
)
"""What variables of this machine begin with that would change what programs under test do."""

for _name in list(os.environ):
    if _name.upper().startswith(FOREIGN) or (_name.startswith("BRIDGE_") and "__" in _name):
        del os.environ[_name]

HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
"""Processes that Python starts once and ends with this process."""


# What collecting makes stays until the end: to look through it for garbage again and again is in vain.
gc.disable()


def pytest_collection_finish():
    """Look for garbage among what the tests make, and there alone."""
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val):
    """Name packed bytes by their size: their content may hold the time, and workers must agree on names."""
    if isinstance(val, bytes) and len(val) > READABLE:
        return f"{len(val)}B"
    return None


MEASURES_MEMORY = ("tracemalloc", "ru_maxrss")


def pytest_itemcollected(item):
    """Mark tests that measure memory, so that `make fast` leaves them out as it does those of hypothesis."""
    code = item.function.__code__
    named = [*code.co_names, *(const for const in code.co_consts if isinstance(const, str))]
    if any(sign in name for name in named for sign in MEASURES_MEMORY):
        item.add_marker("memory")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Let each worker begin with its share of the tests that wait long, so that the others run beside them.

    xdist (--dist worksteal) first gives every worker a slice of the list. Long tests of one file come to one worker:
    one after the other, so that few of them compete.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    early = [item for item in items if item.get_closest_marker("early")]
    others = iter([item for item in items if not item.get_closest_marker("early")])
    files = sorted({item.path for item in early})
    left = len(items)
    items[:] = []
    for worker in range(workers):
        size = left // (workers - worker)
        left -= size
        mine = [item for item in early if item.path in files[worker::workers]]
        items += mine
        items += islice(others, max(0, size - len(mine)))
    items += others


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown():
    """Fail the test that leaves a connection open."""
    result = yield
    assert take_connections_left() == []
    return result


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left():
    """Fail if a process that a test started still runs when all tests of this worker have ended."""
    yield
    assert list(left_by(os.getpid())) == []


def left_by(pid):
    """Yield the command lines of what a process has started, without Python's own helpers, whose children count."""
    for child in children_of(pid):
        command = command_of(child)
        if any(helper in command for helper in HELPERS):
            yield from filter(None, map(command_of, children_of(child)))
        elif command:
            yield command


@pytest.fixture(scope="session")
def weed():
    """A real S3 server for all tests of this worker; each takes a prefix of its own."""
    with Weed() as weed:
        yield weed
