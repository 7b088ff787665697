"""Where a truncated report is cut, and what is written then."""

import pytest

from bridge.domain.junit.repair.truncation import TruncationRepairer

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n'


def close(data: bytes, stop_at: int | None = None) -> tuple[bytes, int | None]:
    closer = TruncationRepairer(stop_at)
    out = b"".join(closer.feed(data[at : at + 5]) for at in range(0, len(data), 5)) + closer.close()
    return out.removeprefix(HEAD), closer.unfinished


@pytest.mark.parametrize(
    ("data", "unfinished"),
    [
        (b"<testsuite><testcase/>", None),
        (b"<testsuite><testcase/><testcase>", 3),
        (b"<testsuite><testcase><failure/></testcase><a/><testcase><failure/><b>", 5),
        (b"<testsuite><testcase><testcase/><a>", 2),
        (b"<j:testsuite xmlns:j='u'><j:testcase>", 2),
    ],
)
def test_the_outermost_open_case_is_found(data: bytes, unfinished: int | None):
    assert close(data)[1] == unfinished


def test_nothing_is_written_from_the_given_tag_on_and_all_is_closed():
    assert close(b"<testsuite><testcase/> <testcase><a>b</a>", 3)[0] == b"<testsuite><testcase/> </testsuite>"


def test_namespaces_stay_to_the_end():
    assert (
        close(b"<j:testsuite xmlns:j='u'><j:testcase/>")[0] == b'<j:testsuite xmlns:j="u"><j:testcase/></j:testsuite>'
    )


@pytest.mark.parametrize("data", [b"", b"<testsuite a='", b"<!-- a --><tests="])
def test_where_no_root_has_begun_nothing_is_written(data: bytes):
    assert close(data) == (b"", None)
