from dataclasses import replace

import pytest

from bridge.domain.build import Build, BuildState, Report, UploadMetadata
from bridge.domain.intake import Rejection, unresolved
from bridge.domain.rows import Rows


def rejection(name, at):
    return Rejection(id=1, rejected_at=at, name=name, reason="No.", code="BRIDGE.REPORT", caller="ci", request_id="r")


def test_what_was_sent_after_all_is_resolved():
    assert unresolved(build(), [replace(rejection("a.xml", 5), sent_at=6), rejection("b.xml", 5)]) == [
        rejection("b.xml", 5)
    ]


def build(*accepted, complete_at=None):
    reports = {
        number: Report(
            id=number,
            name=name,
            node_id="default",
            size=1,
            sent_size=1,
            sent_sha256="",
            accepted_at=at,
            caller="ci",
            caller_routes=None,
            has_bytes=True,
        )
        for number, (name, at) in enumerate(accepted)
    }
    return Build(
        id=1,
        job_id="a" * 32,
        build_no=1,
        state=BuildState.OPEN,
        fencing_token=0,
        report_seq=1,
        finalized_seq=0,
        accepted_at=1,
        last_report_at=1,
        upload_metadata=UploadMetadata(),
        complete_at=complete_at,
        reports=Rows(reports.values()),
    )


@pytest.mark.parametrize(
    ("name", "at", "accepted", "stays"),
    [
        ("a.xml", 5, [("a.xml", 6)], False),  # the same file came again, and was good
        ("a.xml", 5, [("b.xml", 6)], True),  # another file is no replacement
        ("a.xml", 5, [("a.xml", 4)], True),  # it was good once, and then not
        ("a.xml", 5, [("a.xml", 5)], True),  # two of one name in one upload
        ("", 5, [("b.xml", 6)], False),  # a whole upload was refused, the next was not
        ("", 5, [("b.xml", 4)], True),  # also where it came again since: a known report leaves no trace
    ],
)
def test_a_refusal_stays_until_something_made_up_for_it(name, at, accepted, stays):
    refused = rejection(name, at)
    assert unresolved(build(*accepted), [refused]) == ([refused] if stays else [])


def test_a_report_of_the_bridge_itself_makes_up_for_nothing():
    own = build(("codearts-build.xml", 9))
    own = replace(own, reports=Rows(replace(each, generated=True) for each in own.reports.values()))
    assert unresolved(own, [rejection("", 5)]) == [rejection("", 5)]


def test_a_refused_upload_is_made_up_for_by_complete():
    assert unresolved(build(("a.xml", 1), complete_at=6), [rejection("", 5)]) == []
