"""What a route asks to be done with a report before it is sent: repair, and elements that are left out.

It knows neither HTTP nor the spool; what can be mended and how elements are left out, the domain knows.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

from bridge.domain.junit.encoding import WRITE_ENCODING
from bridge.domain.junit.repair.encoding_detection import is_utf_8
from bridge.domain.junit.repair.repair import REPAIRABLE_CODES, Repaired, Source, apply_filter, repair
from bridge.domain.junit.repair.rewrite import ElementStripper
from bridge.domain.junit.result import Invalid, InvalidReport, Valid, ValidationResult
from bridge.domain.junit.xml_errors import OF_AMPERSANDS
from bridge.domain.routing import Route

REPAIRABLE = {WRITE_ENCODING} | OF_AMPERSANDS
"""Remedies that repair may take off the test runner."""

TOO_LARGE = "too_large"
"""Reason of the refusal of what grew beyond the limit under treatment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformOptions:
    """What a route asks for."""

    max_size: int  # bytes of what is sent instead: another encoding may make a report three times as large
    repair: bool = False
    strip: tuple[str, ...] = ()  # names of elements

    @classmethod
    def of(cls, route: Route, *, max_size: int) -> "TransformOptions":
        return cls(max_size=max_size, repair=route.repair, strip=route.strip)

    def __bool__(self) -> bool:
        return self.repair or bool(self.strip)

    def concerns(self, verdict: ValidationResult) -> bool:
        """Tell whether a file of which the gate says this may become another."""
        if isinstance(verdict, Invalid):
            return self.repair and verdict.reason in REPAIRABLE_CODES
        return bool(self.strip) or (self.repair and not is_utf_8(verdict.encoding))


class RewrittenFile(NamedTuple):
    """What was written in place of a report."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformResult:
    """A report that may be sent, and in which bytes."""

    accepted: Valid
    changes: tuple[str, ...] = ()  # sentences for people
    written: RewrittenFile | None = None  # None: it is sent as it came


def transform(
    verdict: ValidationResult, treatment: TransformOptions, source: Source, out: BinaryIO
) -> TransformResult | Invalid:
    """Do what `treatment` asks with the report that `source` opens and of which the gate said `verdict`.

    What is to be sent in its place is written to `out`; it is not when nothing was changed, whatever `out` holds then.
    It takes constant memory but for lxml's longest token, and at most `treatment.max_size` of `out`.
    """
    if not treatment.concerns(verdict):
        return verdict if isinstance(verdict, Invalid) else TransformResult(accepted=verdict)
    mended = _repaired(verdict, treatment, source)
    if isinstance(mended, Invalid):
        return mended
    try:
        return _stripped(mended, treatment, out)
    except InvalidReport as refusal:
        return refusal.invalid


def remedy(refused: Invalid, route: Route) -> str:
    """Return what to do about a rejected file, and that the route may have it repaired if that may help."""
    if refused.remedy not in REPAIRABLE or route.repair:
        return refused.remedy
    return f"{refused.remedy.removesuffix('.')}, or set repair = true on route {route.name}."


def _repaired(verdict: ValidationResult, treatment: TransformOptions, source: Source) -> Repaired | Invalid:
    if treatment.repair and replace(treatment, strip=()).concerns(verdict):
        return repair(source)
    return verdict if isinstance(verdict, Invalid) else Repaired(accepted=verdict, done=(), chunks=source)


def _stripped(mended: Repaired, treatment: TransformOptions, out: BinaryIO) -> TransformResult:
    if treatment.strip:
        stripper = ElementStripper(frozenset(treatment.strip))
        written = _write(lambda: apply_filter(stripper, mended.chunks()), out, treatment.max_size)
        if stripper.removed:
            changes = (*mended.done, _left_out(stripper.removed))
            return TransformResult(accepted=mended.accepted, changes=changes, written=written)
    if not mended.done:
        return TransformResult(accepted=mended.accepted)
    return TransformResult(
        accepted=mended.accepted, changes=mended.done, written=_write(mended.chunks, out, treatment.max_size)
    )


def _write(source: Source, out: BinaryIO, max_size: int) -> RewrittenFile:
    out.seek(0)
    out.truncate()
    size, digest = 0, hashlib.sha256()
    for chunk in source():
        size += len(chunk)
        if size > max_size:
            raise InvalidReport(_too_large(max_size))
        out.write(chunk)
        digest.update(chunk)
    return RewrittenFile(size, digest.hexdigest())


def _too_large(max_size: int) -> Invalid:
    return Invalid(
        reason=TOO_LARGE,
        found=f"as UTF-8 it is larger than {max_size} bytes.",
        remedy="Split the report, or have server.max_report_size raised.",
    )


def _left_out(removed: Mapping[str, int]) -> str:
    return f"Left out: {', '.join(f'{count} {name}' for name, count in sorted(removed.items()))}."
