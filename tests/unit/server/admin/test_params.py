import pytest
from multidict import MultiDict

from bridge.domain.build import BuildState
from bridge.errors import BadParameter
from bridge.server.admin.params import read_builds_query, read_id, read_why_query
from bridge.store.queries import BuildsQuery

JOB = "a1" * 16


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ({}, BuildsQuery()),
        ({"job_id": "", "state": "", "limit": "", "after": ""}, BuildsQuery()),
        ({"job_id": JOB, "build_no": "7"}, BuildsQuery(job_id=JOB, build_no=7)),
        ({"state": "ended", "route": "shop"}, BuildsQuery(state=BuildState.ENDED, route="shop")),
        ({"limit": "1000", "after": "41"}, BuildsQuery(limit=1000, before_id=41)),
        ({"problems": "true", "mirror_differs": "false"}, BuildsQuery(problems=True)),
        ({"problems": "", "mirror_differs": "true"}, BuildsQuery(mirror_differs=True)),
    ],
)
def test_what_is_asked_is_read(query, read):
    assert read_builds_query(MultiDict(query)) == read


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ([("states", "open")], '"states" is not a parameter of this path. Use job_id, build_no, state, route'),
        ([("state", "open"), ("state", "ended")], "state is given more than once."),
        ([("state", "done")], 'state is "done", which is not a state. Send one of open, ended, finalized, no_run.'),
        ([("limit", "0")], 'limit is "0", not a whole number from 1 to 1000.'),
        ([("limit", "1001")], "not a whole number from 1 to 1000."),
        ([("limit", "٣")], "not a whole number"),
        ([("mirror_differs", "yes")], 'mirror_differs is "yes", neither true nor false.'),
        ([("after", "x")], 'after is "x", which is not from a page.'),
        ([("after", "9999999999999999")], "which is not from a page."),
        ([("build_no", "7")], "job_id is missing."),
        ([("job_id", JOB), ("build_no", "20240626.1")], "Use INCREASENUM"),
        ([("route", "a\x00")], "which is too long or not printable."),
        ([("route", "a" * 129)], "Send at most 128 printable characters."),
        ([("job_id", "\udcff")], "which is too long or not printable."),
    ],
)
def test_what_cannot_be_meant_is_said(query, says):
    with pytest.raises(BadParameter, match=r"\. ") as refused:
        read_builds_query(MultiDict(query))
    assert says in str(refused.value)


def test_why_needs_job_and_number_and_nothing_else():
    asked = read_why_query(MultiDict({"job_id": JOB, "build_no": "7"}))
    assert (asked.job_id, asked.build_no) == (JOB, 7)
    for query in ({"job_id": JOB}, {"build_no": "7"}, {"job_id": JOB, "build_no": "7", "node_id": "n"}):
        with pytest.raises(BadParameter):
            read_why_query(MultiDict(query))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        *(("7", 7), ("0", 0), ("007", 7), ("", None), ("-1", None), ("1.0", None), ("٣", None), ("²", None)),
        *((str(2**53), None), ("9" * 5000, None)),
    ],
)
def test_an_id_in_a_path_is_one_that_a_row_may_have(text, read):
    assert read_id(text) == read
