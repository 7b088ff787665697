"""No file costs more CPU time than a few times its size allows, whatever is repeated in it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import pytest

from bridge.domain.junit.repair.repair import repair
from bridge.domain.junit.validator import validate_bytes
from bridge.server.validation.messages import CPU_SECONDS

SIZE = 60_000
LIMIT_SECONDS = CPU_SECONDS / 4
"""CPU time of this process, not of the clock on the wall. Ordinary costs are a hundredth of it; a search that begins at
every character and reads on to the end takes three times as much."""

HEADS = [
    b"",
    b'{"',
    b"TAP version 13\n",
    b'<?xml version="1.0" ',
    b'<testsuite name="s"><t',
    b'<testsuite name="s"><testcase name="',
    b'<testsuite name="s"><testcase name="a"><failure message="m">',
]
REPEATED = [
    *(bytes([character]) for character in b"x<\"'= &.\n\r{[%-?/(\\\x00\xff"),
    *(b"<a ", b"&amp;", b"&#", b"&#x0", b"]]", b"--", b"<!--", b"<![CDATA[", b"<?x ", b"</", b"a=", b'a="<', b":1"),
    *(b"a.b:1", b'<t a="', b"<t a='", b"a\n", b'a="b" ', b"<a>", b"</a>", b"<a/>", b"&x;", b"\x1b[", b"<!ENTITY "),
    *(b'<a "', b"<a '\"", b"<a:", b"x='\"'"),
]
TAILS = [b"", b"</system-out></testcase></testsuite>", b'"></testcase></testsuite>']


class TooSlow(Exception):
    """The limit has passed."""


@contextmanager
def cpu_limit() -> Iterator[None]:
    """Raise TooSlow in the block once this process has computed for LIMIT_SECONDS."""

    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("head", HEADS, ids=[head.decode()[-20:] or "nothing before" for head in HEADS])
def test_repeating_anything_in_a_file_costs_no_more_than_its_size(head: bytes) -> None:
    for repeated, tail in product(REPEATED, TAILS):
        with cpu_limit():
            validate_bytes(head + repeated * (SIZE // len(repeated)) + tail)


@pytest.mark.parametrize("head", HEADS[4:], ids=[head.decode()[-20:] for head in HEADS[4:]])
def test_repairing_a_file_in_which_anything_is_repeated_costs_no_more_than_its_size(head: bytes) -> None:
    for repeated in REPEATED:
        body = head + repeated * (SIZE // len(repeated))
        with cpu_limit():
            repair(lambda body=body: iter([body]))
