"""Behavior and objects of the sandbox."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.state import Behavior, ObjectMap, ObjectReceiver, SandboxState


@pytest.mark.parametrize(
    "changes",
    [
        {"url_seconds": 10},
        {"processing_seconds": 0},
        {"register_latency_seconds": 0.5},
        {"result_shape": "array"},
        {"keep_bytes": False},
        {"storage_idle_seconds": 1.5},
    ],
)
def test_every_setting_can_be_changed_alone(changes):
    changed = Behavior(codearts_tokens=("t",)).changed(changes)
    assert {name: getattr(changed, name) for name in changes} == changes
    assert changed.codearts_tokens == ("t",)


def test_tokens_come_as_a_list_and_are_kept_as_a_tuple():
    assert Behavior().changed({"codearts_tokens": ["a", "b"]}).codearts_tokens == ("a", "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"url_seconds": 0},
        {"url_seconds": True},
        {"processing_seconds": -1},
        {"result_shape": "list"},
        {"keep_bytes": 1},
        {"codearts_tokens": "token"},
        {"colour": "red"},
    ],
)
def test_a_setting_that_does_not_exist_or_does_not_fit_is_rejected_by_its_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Behavior().changed(changes)


def test_the_worlds_time_is_whole_microseconds_of_its_clock():
    world = SandboxState(now=lambda: 12.5, testnod_url="", s3_url="")
    assert world.micros() == 12_500_000


@given(st.lists(st.binary(max_size=20)))
def test_digests_do_not_depend_on_how_the_bytes_came(pieces):
    intake = ObjectReceiver(keep_bytes=True)
    for piece in pieces:
        intake.feed(piece)
    whole = b"".join(pieces)
    stored = intake.done()
    assert (stored.body, stored.size) == (whole, len(whole))
    assert stored.sha256 == hashlib.sha256(whole).hexdigest()


def test_the_etag_of_an_object_is_its_quoted_md5():
    intake = ObjectReceiver(keep_bytes=True)
    assert intake.done().etag == '"d41d8cd98f00b204e9800998ecf8427e"'


def test_only_digest_and_size_are_kept_when_bytes_are_not_wanted():
    intake = ObjectReceiver(keep_bytes=False)
    intake.feed(b"<testsuite/>")
    stored = intake.done()
    assert (stored.body, stored.size) == (None, 12)


def test_the_last_object_under_a_key_wins():
    objects = ObjectMap()
    for body in (b"first", b"second"):
        intake = ObjectReceiver(keep_bytes=True)
        intake.feed(body)
        objects.put("key", intake.done())
    assert objects.find("key").body == b"second"
    assert objects.find("other") is None
