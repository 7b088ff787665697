"""The three encodings of a registration mean the same, and errors are those of TestNod's page."""

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.build import SubmittedRun
from bridge.protocols.testnod import multipart
from bridge.server.submission.fields import (
    MAX_TAGS,
    METADATA_BUILD_ID_REQUIRED,
    NOT_CREATED,
    SubmissionError,
    read_fields,
    submitted_run,
)

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
# A form cannot tell a lone surrogate from bytes in another encoding, and no client sends one.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=40)


def encodings(metadata, tags):
    """Return type and body of a registration in each encoding."""
    pairs = [(f"test_run[metadata][{name}]", value) for name, value in metadata.items()]
    pairs += [("tags[][value]", tag) for tag in tags]
    document = {"tags": [{"value": tag} for tag in tags] or None, "test_run": {"metadata": metadata}}
    return [multipart(pairs), (FORM, urlencode(pairs).encode()), (JSON, json.dumps(document).encode())]


def outcome(content_type, body):
    try:
        return submitted_run(read_fields(body, content_type))
    except SubmissionError as error:
        return str(error), error.status


@given(
    metadata=st.dictionaries(st.sampled_from(["build_id", "branch", "commit_sha", "run_url", "other"]), texts),
    tags=st.lists(texts, max_size=4),
)
def test_multipart_urlencoded_and_json_mean_the_same(metadata, tags):
    first, *others = [outcome(*encoded) for encoded in encodings(metadata, tags)]
    assert others == [first, first]


@given(st.binary(max_size=200), st.sampled_from([JSON, FORM, "multipart/form-data; boundary=b", "", "text/plain"]))
def test_any_bytes_are_a_run_or_an_error_of_the_page(body, content_type):
    found = outcome(content_type, body)
    assert isinstance(found, SubmittedRun) or found[1] in {400, 422}


def test_what_testnods_uploader_sends_is_read():
    body = b'{"tags":null,"test_run":{"metadata":{"branch":"","commit_sha":"","run_url":"","build_id":"b1"}}}'
    assert outcome(JSON, body) == SubmittedRun(build_id="b1")


def test_tags_keep_their_order_and_are_sent_once():
    for content_type, body in encodings({"build_id": "7"}, ["b", "a", "b", ""]):
        assert outcome(content_type, body) == SubmittedRun(build_id="7", tags=("b", "a"))


def test_a_build_id_may_be_a_number_in_json():
    assert outcome(JSON, b'{"test_run":{"metadata":{"build_id":17}}}') == SubmittedRun(build_id="17")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"test_run":null}',
        b'{"test_run":"x"}',
        b'{"test_run":{"metadata":[]}}',
        b'{"test_run":{"metadata":{"build_id":null}}}',
        b'{"test_run":{"metadata":{"build_id":"  "}}}',
        b'{"build_id":"top"}',
    ],
)
def test_without_metadata_build_id_the_page_has_one_message(body):
    assert outcome(JSON, body) == (METADATA_BUILD_ID_REQUIRED, 422)


@pytest.mark.parametrize("body", [b"build_id=7", b"test_run[build_id]=7", b"metadata[build_id]=7", b""])
def test_the_same_in_a_form(body):
    assert outcome(FORM, body) == (METADATA_BUILD_ID_REQUIRED, 422)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b'{"tags":"smoke","test_run":{"metadata":{"build_id":"7"}}}'),
        (JSON, b'{"tags":["smoke"],"test_run":{"metadata":{"build_id":"7"}}}'),
        (FORM, b"test_run[metadata][build_id]=7&tags=smoke"),
        (FORM, b"test_run[metadata][build_id]=7&tags[]=smoke"),
        (FORM, b"test_run[metadata][build_id]=${CI_BUILD_ID}"),
        (FORM, b"test_run[metadata][build_id]=$CI_BUILD_ID"),
        (FORM, b"test_run[metadata][build_id]=7&test_run[metadata][branch]=a%00b"),
        (FORM, b"test_run[metadata][build_id]=" + b"7" * 2000),
        (FORM, b"test_run[metadata][build_id]=7" + b"".join(b"&tags[][value]=%d" % n for n in range(MAX_TAGS + 1))),
        (JSON, b'{"test_run":{"metadata":{"build_id":"7","branch":"\\ud800"}}}'),
    ],
)
def test_what_no_run_can_have_is_not_created(content_type, body):
    assert outcome(content_type, body) == (NOT_CREATED, 422)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b"[1]"),
        (JSON, b"{"),
        (JSON, b"[" * 100_000),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\n"),
    ],
)
def test_a_body_that_is_not_of_its_type_is_400(content_type, body):
    with pytest.raises(SubmissionError) as caught:
        read_fields(body, content_type)
    assert caught.value.status == 400
