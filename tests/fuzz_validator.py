"""Fuzzes validation, repair and stripping: any bytes yield a result in bounded time and memory, never an exception.

`python -m tests.fuzz_validator [--seconds 60] [--seed N]`. Cases run in processes of their own, so that a crash of the
parser is seen, too; each case follows from seed and number alone, and a failure says how to play it again.
"""

import argparse
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bridge.domain.junit.repair.repair import Source, apply_filter, repair
from bridge.domain.junit.repair.rewrite import ElementStripper
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import Valid, validate_bytes, validate_source

BATCH = 2000  # cases a process: libxml2 forgets no name, so one that lives for long grows
BATCH_SECONDS = 120  # a batch takes some seconds; past this one of its cases hangs
CASE_SECONDS = 5.0  # of CPU: a thousand times what a case takes
MEMORY_BYTES = 512 << 20  # of address space: what a checking process of the gateway has
MAX_SIZE = 256 << 10  # bytes of one case: above all sizes at which the validator changes its method
MUTATIONS = (0, 1, 1, 2, 3, 8)  # of one sample: with few of them some stay reports
STRIPPED = frozenset({"properties", "system-out", "system-err"})

_HEAD = '<?xml version="1.0" encoding="{}"?>\n'
_BODY = """<testsuites name="测试" tests="3" time="1,234.5"><testsuite name="crème" time="-0.5">
<properties><property name="a" value="b"/></properties><testcase name="a" classname="C" time="0.1"/>
<testcase name="b"><failure message="x &lt; y"><![CDATA[at <init> ]]></failure><rerunFailure/></testcase>
<testcase name="c"><skipped/><system-out>登录失败 &amp;</system-out></testcase></testsuite></testsuites>
"""
_ENCODINGS = (
    "utf-8",
    "utf-16",
    "gbk",
    "gb18030",
    "windows-1252",
    "iso-8859-1",
    "big5",
    "shift_jis",
    "euc-kr",
    "utf-7",
    "hz",
    "iso-2022-kr",
)
_FOREIGN = (
    b'<!DOCTYPE report SYSTEM "r.dtd"><report/>',
    b'<!DOCTYPE testsuite [<!ENTITY a "<x>"><!ELEMENT testsuite ANY>]><testsuite>&a;</testsuite>',
    b'<!DOCTYPE a [<!ENTITY % b SYSTEM "c"> %b; <!ATTLIST testsuite name CDATA "d">]><testsuite/>',
    b'<j:testsuite xmlns:j="urn:j"><j:testcase/><!-- c --><?pi d?></j:testsuite>',
    b"\xef\xbb\xbf \n<testsuite/>",
    b"\x1f\x8b\x08\0\0\0",
    b'{"a": 1}',
    b"",
)
_TOKENS = (
    b"<", b">", b"&", b"]]>", b"<![CDATA[", b"<!--", b"-->", b"<?xml version='1.0'?>", b"<!DOCTYPE a [", b"]>",
    b"<!ENTITY a 'b'>", b"&a;", b"&#0;", b"&#27;", b"&#xFFFE;", b"&#99999999999;", b"\0", b"\x1b[31m", b"\xff\xfe",
    b"\xfe\xff", b"\xef\xbb\xbf", b"\xb5\xc7\xc2\xbc", b"\xe9", b"\xed\xa0\x80", b"<testsuite>", b"</testsuite>",
    b"<testcase time='1e999'>", b"</testcase>", b"<testsuites/>", b" xmlns='u'", b" xmlns:p=''", b"<p:q/>", b"\r\n",
    b" a='1' a='2'", b"encoding='utf-16'", b"encoding='klingon'", b"<error/>", b"<flakyError/>",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What the cases of one process came to."""

    outcomes: Counter[str]
    fault: str = ""  # empty: every case got its verdict


def case(seed: int, number: int) -> bytes:
    """Make the bytes of one case: every fourth is arbitrary, the others are mutated samples."""
    chance = random.Random(f"{seed}/{number}")
    if number % 4 == 0:
        return chance.randbytes(chance.randrange(2000))
    data = _sample(chance)
    for _ in range(chance.choice(MUTATIONS)):
        data = chance.choice(_MUTATIONS)(chance, data)[:MAX_SIZE]
    return data


def _sample(chance: random.Random) -> bytes:
    if chance.random() < 0.2:
        return chance.choice(_FOREIGN)
    declared, actual = chance.choice(_ENCODINGS), chance.choice(_ENCODINGS)
    head = _HEAD.format(declared if chance.random() < 0.3 else actual) if chance.random() < 0.9 else ""
    return (head + _BODY * chance.choice((1, 1, 1, 2))).encode(actual, errors="ignore")


def _flip(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(1) + data[at + 1 :]


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _remove(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.randrange(40) :]


def _insert(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_TOKENS) + data[at:]


def _repeat(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    end = at + chance.randrange(200)
    return data[:end] + data[at:end] * chance.choice((1, 2, 300, 3000)) + data[end:]


def _splice(chance: random.Random, data: bytes) -> bytes:
    other = _sample(chance)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip,
    _cut,
    _remove,
    _insert,
    _insert,
    _repeat,
    _splice,
)


def play(seed: int, number: int) -> str:
    """Validate, repair and strip one case; return validation's reason, or raise AssertionError on a contradiction."""
    data = case(seed, number)
    began = time.process_time()
    size = random.Random(number).choice((1, 7, 1000, 1 << 16)) if len(data) < 5000 else 1 << 12
    verdict = validate_bytes(data)
    streamed = validate_source(lambda: _chunks(data, size))
    # Of two faults the chunks decide which is met first.
    assert streamed == verdict or (isinstance(streamed, Invalid) and isinstance(verdict, Invalid)), (streamed, verdict)
    repaired = repair(lambda: _chunks(data, max(size, 1000)))
    if isinstance(repaired, Invalid):
        assert isinstance(verdict, Invalid), repaired
    else:
        _strip(repaired.chunks, repaired.accepted)
    assert time.process_time() - began < CASE_SECONDS
    return "accepted" if isinstance(verdict, Valid) else verdict.reason


def _strip(source: Source, accepted: Valid) -> None:
    """Assert that a repaired report has the counts that were returned, and loses no case by stripping."""
    again = validate_source(source)
    assert isinstance(again, Valid), again
    assert (again.counts, again.encoding, again.codec) == (accepted.counts, accepted.encoding, accepted.codec)
    assert set(again.notes) <= set(accepted.notes)  # a note on the encoding that was received stays
    stripped = validate_source(lambda: apply_filter(ElementStripper(STRIPPED), source()))
    assert isinstance(stripped, Valid), stripped
    assert stripped.counts.tests <= accepted.counts.tests


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def run_batch(seed: int, first: int, cases: int) -> Batch:
    """Play cases in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz_validator", "--seed", str(seed), "--play", str(first), str(cases)]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=BATCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as hung:
        return _batch(seed, hung.stdout or b"", "it hangs")
    return _batch(seed, ended.stdout, ended.stderr.decode(errors="replace") or f"status {ended.returncode}")


def _batch(seed: int, said: bytes, fault: str) -> Batch:
    *lines, last = said.decode().split("\n")
    outcomes = Counter(line.split()[1] for line in lines)
    number = last.strip()
    again = f"seed {seed}, case {number}: python -m tests.fuzz_validator --seed {seed} --play {number} 1"
    return Batch(outcomes=outcomes, fault=f"{again}\n{fault}" if last != "end" else "")


def _play_all(seed: int, first: int, cases: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, first + cases):
        sys.stdout.write(f"{number} ")
        sys.stdout.flush()  # before it is played: a crash says nothing more
        sys.stdout.write(f"{play(seed, number)}\n")
    sys.stdout.write("end")


def main() -> None:
    """Fuzz for a while and end with 1 at the first fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--play", type=int, nargs=2, metavar=("FIRST", "CASES"), help="play these in this process")
    asked = parser.parse_args()
    if asked.play:
        _play_all(asked.seed, *asked.play)
        return
    deadline, played, outcomes = time.monotonic() + asked.seconds, 0, Counter[str]()
    while time.monotonic() < deadline:
        batch = run_batch(asked.seed, played, BATCH)
        if batch.fault:
            sys.exit(batch.fault)
        outcomes += batch.outcomes
        played += BATCH
    told = ", ".join(f"{count} {reason}" for reason, count in outcomes.most_common())
    sys.stdout.write(f"seed {asked.seed}: {played} cases, every one with a verdict: {told}.\n")


if __name__ == "__main__":
    main()
