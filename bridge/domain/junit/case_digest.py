"""The results of a report's test cases in a few bytes each: names, verdicts and durations, for the history of a job.

`CaseRecorder` writes a digest while a report is validated; `read_digest` reads it. Why names are in it, and not hashes
of them: docs/decisions/0035-case-digests.md.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from bridge.domain.junit.tally import ERROR, FAILURE, FLAKY, MAX_TIME_TEXT, SKIPPED, read_short_time

MAX_CASES: Final = 50_000
"""Of one report, in document order; later ones are left out, and the digest says so."""

MAX_DIGEST_BYTES: Final = 512 * 1024
MAX_TEXT: Final = 4 << 20
"""Characters of all names of a report, so that a digest that was made to grow takes little memory."""

MAX_NAME: Final = 300
"""Characters of a classname and of a name; the end of a longer one is replaced by a hash of the whole."""

PASSED, FAILED, SKIPPED_CASE, FLAKY_CASE = "P", "F", "S", "K"
VERDICTS: Final = "".join(
    FAILED if bits & (FAILURE | ERROR) else SKIPPED_CASE if bits & SKIPPED else FLAKY_CASE if bits & FLAKY else PASSED
    for bits in range((FAILURE | ERROR | SKIPPED | FLAKY) + 1)
)
"""The verdict of a case by the bits of its outcomes."""

FIELD: Final = "\x1f"
CASE: Final = "\x1e"
"""Between a classname and a name, and after a case: XML permits neither in a name."""

_CHUNK: Final = 500  # cases that are held before they are compressed
_MAX_RAW: Final = 4 * (MAX_TEXT + _CHUNK * 2 * MAX_NAME) + 4 * MAX_CASES  # bytes
_WHOLE, _CUT = b"\1", b"\2"
# A small window makes small digests three times as fast as zlib's default, and large ones 5 % larger (bench/cases.py).
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL = 1, -12, 5
_STEPS: Final = 8  # of a duration in an octave: each is 9 % longer than the one before
_FIRST_STEP: Final = 6 * _STEPS - 1  # 64 microseconds


class CaseResult(NamedTuple):
    """One case: `identity` is classname and name, `FIELD` between them, which TestNod identifies a test by."""

    identity: str
    verdict: str  # PASSED, FAILED, SKIPPED_CASE or FLAKY_CASE (passed after an attempt that failed)
    time_us: int | None  # to within 5 %; None: not stated


class CaseDigest(NamedTuple):
    """The cases of a report in document order; `cut`: it had more."""

    cases: list[CaseResult]
    cut: bool


class CaseRecorder:
    """Takes the cases of a report one by one. With `escaped`, names hold `&#38;` in place of each `&`."""

    __slots__ = ("_cases", "_classname", "_compressor", "_count", "_escaped", "_is_full", "_names", "_out", "_size",
                 "_text_left", "_times", "_verdicts")  # fmt: skip

    def __init__(self, *, escaped: bool = False) -> None:
        self._escaped = escaped
        self._names: list[str] = []
        self._verdicts: list[str] = []
        self._times: list[str | None] = []
        self._classname: str | None = None  # of the case before
        self._text_left = MAX_TEXT
        self._count = self._size = 0
        self._is_full = False
        self._out: list[bytes] = []
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)

    def add(self, classname: str | None, name: str | None, outcomes: int, time: str | None) -> None:
        """Record one case; runs once per case of a stream."""
        if self._is_full:
            return
        text = name or ""
        if len(text) > MAX_NAME:
            text = _shortened(text)
        if classname != self._classname:
            self._classname = classname
            text = f"{_prefix(classname)}{text}"
        self._names.append(text)
        self._verdicts.append(VERDICTS[outcomes])
        self._times.append(time if time is None or len(time) <= MAX_TIME_TEXT else None)
        if len(self._names) == _CHUNK:
            self._flush()

    def add_all(
        self,
        classnames: Sequence[str | None],
        names: Sequence[str],
        outcomes: Sequence[int],
        times: Sequence[str | None],
    ) -> None:
        """Record cases, of which the sequences have one value each."""
        start = 0
        while start < len(names) and not self._is_full:
            end = start + _CHUNK - len(self._names)
            self._add_names(classnames[start:end], names[start:end])
            self._verdicts += map(VERDICTS.__getitem__, outcomes[start:end])
            self._times += [time if time is None or len(time) <= MAX_TIME_TEXT else None for time in times[start:end]]
            if len(self._names) == _CHUNK:
                self._flush()
            start = end

    def _add_names(self, classnames: Sequence[str | None], names: Sequence[str]) -> None:
        texts = [name if len(name) <= MAX_NAME else _shortened(name) for name in names]
        before = self._classname
        for at, classname in enumerate(classnames):
            if classname != before:
                before = classname
                texts[at] = f"{_prefix(classname)}{texts[at]}"
        self._classname = before
        self._names += texts

    def digest(self) -> bytes:
        """Return the digest, which has at most MAX_DIGEST_BYTES; empty if there is no case."""
        self._flush()
        if not self._count:
            return b""
        self._keep(self._compressor.flush())
        if self._size > MAX_DIGEST_BYTES:
            return b""
        return b"".join((_CUT if self._is_full else _WHOLE, *self._out))

    def _flush(self) -> None:
        """Write the cases that were added since the last call: numbers, names, verdicts, durations."""
        if not self._names or self._is_full:
            return
        names = CASE.join(self._names)
        if self._escaped and "&" in names:
            names = names.replace("&#38;", "&")
        encoded = names.encode()
        self._text_left -= len(names)
        self._count += len(self._names)
        head = b"%d %d\n" % (len(self._names), len(encoded))
        times = bytes(map(_step, self._times))
        self._keep(self._compressor.compress(b"".join((head, encoded, "".join(self._verdicts).encode(), times))))
        self._is_full = self._count >= MAX_CASES or self._text_left <= 0 or self._size > MAX_DIGEST_BYTES * 3 // 4
        self._names.clear()
        self._verdicts.clear()
        self._times.clear()
        self._classname = None

    def _keep(self, written: bytes) -> None:
        self._size += len(written)
        self._out.append(written)


def _shortened(text: str) -> str:
    return f"{text[: MAX_NAME - 18]}…{blake2b(text.encode(), digest_size=8).hexdigest()}"


def _prefix(classname: str | None) -> str:
    text = classname or ""
    return f"{text if len(text) <= MAX_NAME else _shortened(text)}{FIELD}"


@lru_cache(maxsize=2_000)
def _step(time: str | None) -> int:
    """Return a duration on a scale of 255 steps from 64 microseconds to three days; 0 if it is not stated."""
    time_us = read_short_time(time)
    if time_us is None:
        return 0
    return 1 if time_us < 64 else min(255, max(1, int(math.log2(time_us) * _STEPS) - _FIRST_STEP))


_TIMES: Final = (None, 0, *(round(2 ** ((step + _FIRST_STEP + 0.5) / _STEPS)) for step in range(2, 256)))
"""The durations of the steps, in microseconds."""


def read_digest(digest: bytes, max_cases: int = MAX_CASES) -> CaseDigest:
    """Return the cases of a digest; none if it is damaged or of a later version."""
    if digest[:1] not in (_WHOLE, _CUT):
        return CaseDigest([], cut=bool(digest))
    try:
        raw = zlib.decompressobj(_WINDOW_BITS).decompress(digest[1:], _MAX_RAW)
        cases = [case for chunk in _chunks(raw) for case in chunk]
    except (zlib.error, ValueError):
        return CaseDigest([], cut=True)
    return CaseDigest(cases[:max_cases], cut=digest[:1] == _CUT or len(cases) > max_cases)


def _chunks(raw: bytes) -> Iterator[list[CaseResult]]:
    at = 0
    while at < len(raw):
        head, at = raw[at : raw.index(b"\n", at)], raw.index(b"\n", at) + 1
        count, size = map(int, head.split())
        names = raw[at : at + size].decode().split(CASE)
        verdicts = raw[at + size : at + size + count].decode("ascii")
        times = raw[at + size + count : at + size + 2 * count]
        at += size + 2 * count
        cases, classname = [], ""
        for name, verdict, time in zip(names, verdicts, times, strict=True):
            before, field, rest = name.partition(FIELD)
            if field:
                classname = before
            cases.append(CaseResult(f"{classname}{FIELD}{rest if field else name}", verdict, _TIMES[time]))
        yield cases
