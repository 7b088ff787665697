"""Turns libxml2's errors into an `Invalid` with a message that names one fault and its remedy."""

from typing import Final

from lxml import etree

from bridge.domain.junit.result import Invalid

TRUNCATED: Final = "truncated"  # reason of a document that ends too early
MAX_SHOWN_MESSAGE: Final = 200  # characters of libxml2's message, which quotes names from the file
AS_WRITTEN: Final = "Upload the file as the test runner wrote it."
ESCAPE_AMPERSAND: Final = "The test runner must write it as &amp;."
ESCAPE_ENTITY: Final = 'The test runner must write the character itself, or the "&" as &amp;.'
OF_AMPERSANDS: Final = frozenset({ESCAPE_AMPERSAND, ESCAPE_ENTITY})  # remedies that repair can apply
JOIN_HALVES: Final = "The test runner must write one reference, or the character itself."
WRITE_WHOLE: Final = "The test runner must write the whole character, or U+FFFD."
ESCAPE_LESS_THAN: Final = "The test runner must write it as &lt;."
KEEP_CONTROLS_OUT: Final = "Keep control characters, such as color codes, out of what the tests print into it."
ONE_BY_ONE: Final = "Upload each report as a file of its own, with nothing after it."

NO_MEMORY: Final = etree.ErrorTypes.ERR_NO_MEMORY
BAD_BYTES: Final = etree.ErrorTypes.ERR_INVALID_ENCODING
UNKNOWN_ENCODING: Final = frozenset({etree.ErrorTypes.ERR_UNKNOWN_ENCODING, etree.ErrorTypes.ERR_UNSUPPORTED_ENCODING})

OWN_MESSAGES: Final = {
    etree.ErrorTypes.ERR_CDATA_NOT_FINISHED: "CDATA section not finished"
}  # some versions of libxml2 have no text for it

EMPTY: Final = Invalid(
    reason="empty",
    found="the file is empty.",
    remedy="Check that the test runner writes its report before the upload begins.",
)
ENTITIES: Final = Invalid(
    reason="entities",
    found="its DOCTYPE declares entities, which JUnit reports do not use.",
    remedy="Configure the test runner to write the report without them.",
)
TOO_MUCH_MEMORY: Final = Invalid(
    reason="too_much_memory",
    found="reading it takes more memory than allowed for a report.",
    remedy="Split the report, or write less output into it.",
)


def code_of(error: etree.XMLSyntaxError) -> int:
    """Return libxml2's error number."""
    return int(error.code)  # type: ignore[attr-defined]  # missing in the stubs


def message_of(error: etree.XMLSyntaxError) -> str:
    """Return libxml2's message without the position: one printable line of limited length."""
    message = OWN_MESSAGES.get(code_of(error)) or str(error.msg).rsplit(", line ", 1)[0]
    flat = "".join(character if character.isprintable() else " " for character in message)
    return " ".join(flat.split())[:MAX_SHOWN_MESSAGE]


def extra_content(message: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document with more than comments after its root."""
    found = f"there is more after the end of the report: {_quoted(message, line, column)}"
    return Invalid(reason="extra_content", found=found, remedy=ONE_BY_ONE, line=line, column=column)


def cut_off(message: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document that ends too early."""
    found = f"the file ends too early: {_quoted(message, line, column)}"
    remedy = "Check that the test runner was not killed while writing it, and upload the whole file."
    return Invalid(reason=TRUNCATED, found=found, remedy=remedy, line=line, column=column)


def unnamed(message: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document that is not well-formed, with libxml2's message."""
    found = f"it is not well-formed XML: {_quoted(message, line, column)}"
    return Invalid(reason="not_xml", found=found, remedy=AS_WRITTEN, line=line, column=column)


def forbidden(what: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document with a character, or a reference to one, that XML forbids."""
    found = f"it contains a character that XML forbids: {what} at line {line}, column {column}."
    return Invalid(reason="not_xml", found=found, remedy=KEEP_CONTROLS_OUT, line=line, column=column)


def named(what: str, remedy: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document that is not well-formed, with a plain name of the fault."""
    found = f"line {line}, column {column}: {what}."
    return Invalid(reason="not_xml", found=found, remedy=remedy, line=line, column=column)


def _quoted(message: str, line: int, column: int) -> str:
    return f'"{message}" at line {line}, column {column}.'
