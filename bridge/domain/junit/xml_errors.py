"""Turns what lxml says of a broken document into one fault that a person can mend.

It knows libxml2's error codes and words; it sees no document.
"""

from typing import Final

from lxml import etree

from bridge.domain.junit.result import Invalid

TRUNCATED: Final = "truncated"  # reason of a document that ends too early
MAX_SHOWN_MESSAGE: Final = 200  # characters of libxml2's words, which quote names from the file
AS_WRITTEN: Final = "Upload the file as the test runner wrote it."
ESCAPE_AMPERSAND: Final = "The test runner must write it as &amp;."
ESCAPE_ENTITY: Final = 'The test runner must write the character itself, or the "&" as &amp;.'
OF_AMPERSANDS: Final = frozenset({ESCAPE_AMPERSAND, ESCAPE_ENTITY})  # remedies that repair can bring about
ESCAPE_LESS_THAN: Final = "The test runner must write it as &lt;."
KEEP_CONTROLS_OUT: Final = "Keep control characters, such as colour codes, out of what the tests print into it."
ONE_BY_ONE: Final = "Upload each report as a file of its own, with nothing behind it."

NO_MEMORY: Final = etree.ErrorTypes.ERR_NO_MEMORY
BAD_BYTES: Final = etree.ErrorTypes.ERR_INVALID_ENCODING
UNKNOWN_ENCODING: Final = frozenset({etree.ErrorTypes.ERR_UNKNOWN_ENCODING, etree.ErrorTypes.ERR_UNSUPPORTED_ENCODING})

OWN_WORDS: Final = {
    etree.ErrorTypes.ERR_CDATA_NOT_FINISHED: "CDATA section not finished"
}  # libxml2 has none everywhere

EMPTY: Final = Invalid(
    reason="empty",
    found="the file is empty.",
    remedy="Check that the test runner wrote its report before the upload begins.",
)
ENTITIES: Final = Invalid(
    reason="entities",
    found="its DOCTYPE declares entities, which no JUnit report needs.",
    remedy="Have the report written without them.",
)
TOO_MUCH_MEMORY: Final = Invalid(
    reason="too_much_memory",
    found="reading it takes more memory than a report may take.",
    remedy="Split the report, or write less output into it.",
)


def code_of(error: etree.XMLSyntaxError) -> int:
    """Give libxml2's number of the fault."""
    return int(error.code)  # type: ignore[attr-defined]  # the stubs leave it out


def message_of(error: etree.XMLSyntaxError) -> str:
    """Give libxml2's own words without the position, on one line, printable and bounded."""
    words = OWN_WORDS.get(code_of(error)) or str(error.msg).rsplit(", line ", 1)[0]
    flat = "".join(character if character.isprintable() else " " for character in words)
    return " ".join(flat.split())[:MAX_SHOWN_MESSAGE]


def extra_content(words: str, *, line: int, column: int) -> Invalid:
    """Refuse a document behind whose root there is more than comments."""
    found = f"more follows after the end of the report: {_quoted(words, line, column)}"
    return Invalid(reason="extra_content", found=found, remedy=ONE_BY_ONE, line=line, column=column)


def cut_off(words: str, *, line: int, column: int) -> Invalid:
    """Refuse a document that ends too early."""
    found = f"the file ends too early: {_quoted(words, line, column)}"
    remedy = "Check that the test runner was not killed while writing it, and upload the whole file."
    return Invalid(reason=TRUNCATED, found=found, remedy=remedy, line=line, column=column)


def unnamed(words: str, *, line: int, column: int) -> Invalid:
    """Refuse a document that is not well-formed, in libxml2's words."""
    found = f"this is not XML: {_quoted(words, line, column)}"
    return Invalid(reason="not_xml", found=found, remedy=AS_WRITTEN, line=line, column=column)


def forbidden(what: str, *, line: int, column: int) -> Invalid:
    """Refuse a document that holds a character, or a reference to one, that XML forbids."""
    found = f"it holds a character that XML forbids: {what} at line {line}, column {column}."
    return Invalid(reason="not_xml", found=found, remedy=KEEP_CONTROLS_OUT, line=line, column=column)


def named(what: str, remedy: str, *, line: int, column: int) -> Invalid:
    """Refuse a document that is not well-formed for a reason that has a plain name."""
    found = f"line {line}, column {column}: {what}."
    return Invalid(reason="not_xml", found=found, remedy=remedy, line=line, column=column)


def _quoted(words: str, line: int, column: int) -> str:
    return f'"{words}" at line {line}, column {column}.'


def unknown_encoding(error: etree.XMLSyntaxError, *, line: int) -> Invalid:
    """Refuse a document in an encoding that nothing here reads."""
    return Invalid(
        reason="encoding",
        found=f'its encoding cannot be read: "{message_of(error)}" at line {line}.',
        remedy="Have the test runner write UTF-8.",
        line=line,
    )
