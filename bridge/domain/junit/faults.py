"""Turns what lxml says of a broken document into one fault that a person can mend.

It knows libxml2's error codes and words; it sees no document.
"""

from typing import Final

from lxml import etree

from bridge.domain.junit.verdict import Refused

MAX_SHOWN_MESSAGE: Final = 200  # characters of libxml2's words, which quote names from the file
AS_WRITTEN: Final = "Upload the file as the test runner wrote it."

NO_MEMORY: Final = etree.ErrorTypes.ERR_NO_MEMORY
BAD_BYTES: Final = etree.ErrorTypes.ERR_INVALID_ENCODING
UNKNOWN_ENCODING: Final = frozenset({etree.ErrorTypes.ERR_UNKNOWN_ENCODING, etree.ErrorTypes.ERR_UNSUPPORTED_ENCODING})
BAD_CHARACTER: Final = etree.ErrorTypes.ERR_INVALID_CHAR
NO_ELEMENT: Final = frozenset({etree.ErrorTypes.ERR_DOCUMENT_EMPTY, etree.ErrorTypes.ERR_INTERNAL_ERROR})

OWN_WORDS: Final = {
    etree.ErrorTypes.ERR_CDATA_NOT_FINISHED: "CDATA section not finished"
}  # libxml2 has none everywhere

# Found at the end of the file and yet no sign that anything is missing there.
WHOLE_BUT_WRONG: Final = frozenset(
    {
        etree.ErrorTypes.ERR_LT_IN_ATTRIBUTE,
        etree.ErrorTypes.ERR_TAG_NAME_MISMATCH,
        etree.ErrorTypes.ERR_UNDECLARED_ENTITY,
        etree.ErrorTypes.ERR_ATTRIBUTE_REDEFINED,
    }
)

EMPTY: Final = Refused(
    reason="empty",
    found="the file is empty.",
    remedy="Check that the test runner wrote its report before the upload begins.",
)
ENTITIES: Final = Refused(
    reason="entities",
    found="its DOCTYPE declares entities, which no JUnit report needs.",
    remedy="Have the report written without them.",
)
TOO_MUCH_MEMORY: Final = Refused(
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


def syntax_fault(error: etree.XMLSyntaxError, *, line: int, column: int, at_end: bool, root_closed: bool) -> Refused:
    """Refuse a document that is not well-formed.

    `at_end`: the fault showed only when the file had ended. `root_closed`: the report was whole before it.
    """
    place = f'"{message_of(error)}" at line {line}, column {column}.'
    if root_closed:
        reason, found = "extra_content", f"more follows after the end of the report: {place}"
        remedy = "Upload each report as a file of its own, with nothing behind it."
    elif code_of(error) == BAD_CHARACTER and not at_end:
        reason, found = "not_xml", f"it holds a character that XML forbids: {place}"
        remedy = "Keep control characters, such as colour codes, out of what the tests print into it."
    elif at_end and code_of(error) not in WHOLE_BUT_WRONG and (line, column) != (1, 1):  # there nothing had begun
        reason, found = "truncated", f"the file ends too early: {place}"
        remedy = "Check that the test runner was not killed while writing it, and upload the whole file."
    else:
        reason, found, remedy = "not_xml", f"this is not XML: {place}", AS_WRITTEN
    return Refused(reason=reason, found=found, remedy=remedy, line=line, column=column)


def unknown_encoding(error: etree.XMLSyntaxError, *, line: int) -> Refused:
    """Refuse a document in an encoding that nothing here reads."""
    return Refused(
        reason="encoding",
        found=f'its encoding cannot be read: "{message_of(error)}" at line {line}.',
        remedy="Have the test runner write UTF-8.",
        line=line,
    )
