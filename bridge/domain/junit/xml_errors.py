"""The faults of a file that is not well-formed, each as an `Invalid` with a message that names it and its remedy."""

from typing import Final

from bridge.domain.junit.result import Invalid

TRUNCATED: Final = "truncated"  # reason of a document that ends too early
REPAIRABLE_CODES: Final = frozenset({"encoding", "not_xml", TRUNCATED})  # reasons of what a repair may make valid
AS_WRITTEN: Final = "Upload the file as the test runner wrote it."
ESCAPE_AMPERSAND: Final = "The test runner must write it as &amp;."
ESCAPE_ENTITY: Final = 'The test runner must write the character itself, or the "&" as &amp;.'
OF_AMPERSANDS: Final = frozenset({ESCAPE_AMPERSAND, ESCAPE_ENTITY})  # remedies that repair can apply
JOIN_HALVES: Final = "The test runner must write one reference, or the character itself."
WRITE_WHOLE: Final = "The test runner must write the whole character, or U+FFFD."
QUOTE_VALUES: Final = "The test runner must write every value in quotation marks."
CUT_BEFORE: Final = "Write only the report into this file, and logs to another one."
WRITE_XML: Final = "Upload the XML file that the test runner wrote, not what it printed."
WRITE_XML_1_0: Final = "The test runner must write XML 1.0, without control characters such as color codes."
ESCAPE_LESS_THAN: Final = "The test runner must write it as &lt;."
KEEP_CONTROLS_OUT: Final = "Keep control characters, such as color codes, out of what the tests print into it."
ONE_BY_ONE: Final = "Upload each report as a file of its own, with nothing after it."

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
ATTRIBUTES: Final = Invalid(
    reason="entities",
    found="its DOCTYPE declares attributes, which JUnit reports do not use.",
    remedy="Configure the test runner to write the report without them.",
)
"""Their default values would be added to each element: a small file becomes a large one, as with entities."""

TOO_MUCH_MEMORY: Final = Invalid(
    reason="too_much_memory",
    found="reading it takes more memory than allowed for a report.",
    remedy="Split the report, or write less output into it.",
)


def extra_content(excerpt: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document with more than comments after its root, which begins with `excerpt`."""
    what = "another document" if excerpt.startswith("<") else f'"{excerpt}"' if excerpt else "text"
    found = f"there is more after the end of the report: {what} at line {line}, column {column}."
    return Invalid(reason="extra_content", found=found, remedy=ONE_BY_ONE, line=line, column=column)


def cut_off(is_open: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document that ends too early; `is_open` is a clause that names what has no end."""
    found = f"the file ends too early: at line {line}, column {column}, {is_open}."
    remedy = "Check that the test runner was not killed while writing it, and upload the whole file."
    return Invalid(reason=TRUNCATED, found=found, remedy=remedy, line=line, column=column)


def unnamed(what: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document that is not well-formed, with the text at the fault or libxml2's message."""
    shown = f'"{what}" is not allowed' if what else "a character is not allowed"
    found = f"it is not well-formed XML: {shown} at line {line}, column {column}."
    return Invalid(reason="not_xml", found=found, remedy=AS_WRITTEN, line=line, column=column)


def never_xml(excerpt: str, *, line: int, column: int) -> Invalid:
    """Return the result for a file without any XML, which begins with `excerpt`."""
    begins = f'it begins with "{excerpt}"' if excerpt else "it begins with a character that is not text"
    found = f"it is not XML: {begins} at line {line}, column {column}."
    return Invalid(reason="not_xml", found=found, remedy=WRITE_XML, line=line, column=column)


def text_before(excerpt: str, *, line: int, is_plain: bool) -> Invalid:
    """Return the result for a file with text before the report, which begins at a later line.

    `excerpt` is the first line; `is_plain` if the text contains nothing of another report.
    """
    begins = f'begins with "{excerpt}"' if excerpt else "does not begin with XML"
    found = f"it {begins}; the report itself begins at line {line}."
    return Invalid(reason="not_xml", found=found, remedy=CUT_BEFORE if is_plain else ONE_BY_ONE, line=line)


def forbidden(what: str, *, line: int, column: int, is_xml_1_1: bool = False) -> Invalid:
    """Return the result for a document with a character, or a reference to one, that XML forbids."""
    found = f"it contains a character that XML forbids: {what} at line {line}, column {column}."
    if is_xml_1_1:
        found = (
            f"it declares XML 1.1, which is not supported, and XML 1.0 forbids {what} at line {line}, column {column}."
        )
    remedy = WRITE_XML_1_0 if is_xml_1_1 else KEEP_CONTROLS_OUT
    return Invalid(reason="not_xml", found=found, remedy=remedy, line=line, column=column)


def named(what: str, remedy: str, *, line: int, column: int) -> Invalid:
    """Return the result for a document that is not well-formed, with a plain name of the fault."""
    found = f"line {line}, column {column}: {what}."
    return Invalid(reason="not_xml", found=found, remedy=remedy, line=line, column=column)
