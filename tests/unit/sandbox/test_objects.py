import hashlib

from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.objects import ObjectMap, ObjectReceiver


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
