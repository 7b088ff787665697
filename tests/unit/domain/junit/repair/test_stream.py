"""Pieces through filters: nothing is lost, added or held back too long."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.junit.repair.stream import regroup, through


class Doubled:
    """Gives what it got before, twice, one piece late."""

    def __init__(self):
        self.blocked_reason = b""

    def feed(self, piece):
        out, self.blocked_reason = self.blocked_reason * 2, piece
        return out

    def close(self):
        return self.blocked_reason * 2


def test_a_filter_is_fed_and_closed_and_gives_no_empty_chunks():
    assert list(through(Doubled(), iter([b"a", b"b", b""]))) == [b"aa", b"bb"]
    assert list(through(Doubled(), iter([]))) == []


@given(chunks=st.lists(st.binary(max_size=20)), size=st.integers(1, 9))
def test_regrouped_bytes_are_the_same_in_pieces_of_one_size(chunks: list[bytes], size: int):
    pieces = list(regroup(iter(chunks), size))
    assert b"".join(pieces) == b"".join(chunks)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(0 < len(piece) <= size for piece in pieces)


def test_pieces_come_as_soon_as_they_are_whole():
    chunks = iter([b"abc", b"d"])
    assert next(regroup(chunks, 2)) == b"ab"
    assert next(chunks) == b"d"
