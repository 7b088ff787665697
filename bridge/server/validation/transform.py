"""Repair a report, strip elements from it, or rewrite names in it, before it is sent, as its route asks for."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import BinaryIO

from bridge.domain.junit.encoding import PIECE_SIZE
from bridge.domain.junit.repair.repair import Repaired, Source, apply_filter, prepare, repair
from bridge.domain.junit.repair.rewrite import CaseRenamer, ElementStripper
from bridge.domain.junit.result import Invalid, InvalidReport, ValidationResult
from bridge.domain.junit.rewrite_rules import NameRewriter
from bridge.domain.junit.validator import validate_source
from bridge.server.validation.messages import TOO_LARGE, FileDigest, TransformOptions, TransformResult


def transform(
    result: ValidationResult, options: TransformOptions, source: Source, out: BinaryIO
) -> TransformResult | Invalid:
    """Apply `options` to the report that `source` opens and whose validation returned `result`.

    The bytes to send are written to `out`; if nothing was changed, the content of `out` is undefined. Memory use is
    constant except for the longest token in lxml. `out` never exceeds `options.max_size`.
    """
    if not options.apply_to(result):
        return result if isinstance(result, Invalid) else TransformResult(accepted=result)
    repaired = _repaired(result, options, source)
    if isinstance(repaired, Invalid):
        return repaired
    try:
        return _rewritten(repaired, options, out)
    except InvalidReport as error:
        return error.invalid


def _repaired(result: ValidationResult, options: TransformOptions, source: Source) -> Repaired | Invalid:
    if options.repair and replace(options, strip=(), rewrite=()).apply_to(result):
        return repair(source)
    return prepare(result, source)


def _rewritten(repaired: Repaired, options: TransformOptions, out: BinaryIO) -> TransformResult:
    stripper = ElementStripper(frozenset(options.strip)) if options.strip else None
    names = NameRewriter(options.rewrite) if options.rewrite else None
    if stripper or names:
        written = _write(lambda: _filtered(repaired.chunks(), stripper, names), out, options.max_size)
        removed = stripper.removed if stripper else {}
        renamed = names is not None and names.changed
        if removed or renamed:
            accepted = validate_source(lambda: _chunks(out), records_cases=renamed)
            if isinstance(accepted, Invalid):
                raise InvalidReport(accepted)
            if not renamed:  # elements that are left out change no case
                accepted = replace(accepted, case_digest=repaired.accepted.case_digest)
            left_out = (_removed_text(removed),) if removed else ()
            changes = (*repaired.done, *left_out, *(names.changes() if names else ()))
            return TransformResult(accepted=accepted, changes=changes, written=written)
    if not repaired.done:
        return TransformResult(accepted=repaired.accepted)
    written = _write(repaired.chunks, out, options.max_size)
    return TransformResult(accepted=repaired.accepted, changes=repaired.done, written=written)


def _filtered(chunks: Iterator[bytes], stripper: ElementStripper | None, names: NameRewriter | None) -> Iterator[bytes]:
    if stripper is not None:
        chunks = apply_filter(stripper, chunks)
    return chunks if names is None else apply_filter(CaseRenamer(names), chunks)


def _write(source: Source, out: BinaryIO, max_size: int) -> FileDigest:
    out.seek(0)
    out.truncate()
    size, digest = 0, hashlib.sha256()
    for chunk in source():
        size += len(chunk)
        if size > max_size:
            raise InvalidReport(_too_large(max_size))
        out.write(chunk)
        digest.update(chunk)
    return FileDigest(size, digest.hexdigest())


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(PIECE_SIZE):
        yield chunk


def _too_large(max_size: int) -> Invalid:
    return Invalid(
        reason=TOO_LARGE,
        found=f"as UTF-8 it is larger than {max_size} bytes.",
        remedy="Split the report, or raise server.max_report_size.",
    )


def _removed_text(removed: Mapping[str, int]) -> str:
    return f"Left out: {', '.join(f'{count} {name}' for name, count in sorted(removed.items()))}."
