"""Text without what XML forbids: what is counted, what is buffered, what stays unchanged."""

import sys

import pytest

from bridge.domain.junit.repair.control_chars import MAX_TOKEN_SIZE, ControlCharFilter


def test_each_kind_is_counted_apart():
    control_filter = ControlCharFilter("utf-8")
    out = (
        control_filter.feed(b"\n<?xml version='1.0' encoding='big5'?><a>\x1b[1mb\x00&#1;</a>\xe4\xb8")
        + control_filter.close()
    )
    assert out == b'<?xml version="1.0" encoding="UTF-8"?><a>b</a>'
    assert (control_filter.color_codes, control_filter.controls, control_filter.dangling) == (1, 2, 2)
    assert control_filter.trimmed
    assert control_filter.declares


@pytest.mark.parametrize(
    "declaration",
    ["", "<?xml version='1.0'?>", "<?xml version='1.0' encoding='UTF-8'?>", "<?xml version='1.0' encoding='utf-8'"],
)
def test_a_declaration_that_says_nothing_wrong_stays(declaration: str):
    control_filter = ControlCharFilter("utf-8")
    document = f"{declaration}<a/>".encode()
    assert control_filter.feed(document) + control_filter.close() == document
    assert not control_filter.declares
    assert not control_filter.trimmed


@pytest.mark.parametrize(
    "text", ["&" * 500, "\x1b" * 500, "]" * 500, "<" * 500, "\x1b[" + "1;" * 500, "&#" + "0" * 500]
)
def test_no_more_is_blocked_back_than_a_token_may_be_long(text: str):
    control_filter = ControlCharFilter("utf-8")
    given = control_filter.feed(f"<a>{text}".encode())
    assert len(control_filter.close()) <= 2 * MAX_TOKEN_SIZE
    assert given.startswith(b"<a>")


@pytest.mark.parametrize("text", ["&#;", "&#x;", "&#12a;", "&#x1G;", "&#-1;", "&#_7;", "&#65;", "&# 7;", "&#²;"])
def test_what_is_no_forbidden_reference_stays(text: str):
    control_filter = ControlCharFilter("utf-8")
    assert (control_filter.feed(text.encode()) + control_filter.close()).decode() == text
    assert control_filter.controls == 0


def test_bytes_of_another_encoding_are_an_error():
    with pytest.raises(UnicodeDecodeError):
        ControlCharFilter("utf-8").feed(b"\xff ")


def test_references_to_halves_that_repeat_are_joined_at_little_cost_each():
    calls, joined = 0, ControlCharFilter("utf-8")

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        out = joined.feed(b"&#55357;&#56832;" * 1000 + b"&#xD83D;&#xDE00;" * 1000) + joined.close()
    finally:
        sys.setprofile(None)
    assert out.decode() == "\U0001f600" * 2000
    assert joined.joined == 2000
    assert calls < 3 * 2000


@pytest.mark.parametrize("character", ["\U00010000", "\U0001f600", "\U0010fc00", "\U0010ffff", "\U000103ff"])
@pytest.mark.parametrize("form", ["&#{};", "&#x{:x};", "&#x{:X};", "&#0{};", "&#x00{:x};"])
def test_each_pair_of_halves_is_its_character(character: str, form: str):
    units = character.encode("utf-16-be")
    pair = "".join(form.format(int.from_bytes(units[at : at + 2], "big")) for at in (0, 2))
    joined = ControlCharFilter("utf-8")
    assert (joined.feed(pair.encode()) + joined.close()).decode() == character
