"""Reports as texts, and their validation in both ways."""

from bridge.domain.junit.validator import Invalid, Valid, validate_bytes, validate_source


def validated(report: str | bytes) -> Valid:
    """Return the result for a valid report, which is the same from a tree and from a stream in small pieces."""
    data = report.encode() if isinstance(report, str) else report
    result = validate_bytes(data)
    assert not isinstance(result, Invalid), result
    for size in (7, 1 << 20):
        assert validate_source(lambda: (data[at : at + size] for at in range(0, len(data), size))) == result  # noqa: B023
    return result
