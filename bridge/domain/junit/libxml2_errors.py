"""The errors of libxml2 that the validator distinguishes, and their messages for people."""

from typing import Final

from lxml import etree

NO_MEMORY: Final = etree.ErrorTypes.ERR_NO_MEMORY
BAD_BYTES: Final = etree.ErrorTypes.ERR_INVALID_ENCODING
UNKNOWN_ENCODING: Final = frozenset({etree.ErrorTypes.ERR_UNKNOWN_ENCODING, etree.ErrorTypes.ERR_UNSUPPORTED_ENCODING})

OWN_MESSAGES: Final = {
    etree.ErrorTypes.ERR_CDATA_NOT_FINISHED: "CDATA section not finished"
}  # some versions of libxml2 have no text for it

MAX_SHOWN_MESSAGE: Final = 200  # characters of libxml2's message, which quotes names from the file


def code_of(error: etree.XMLSyntaxError) -> int:
    """Return libxml2's error number."""
    return int(error.code)  # type: ignore[attr-defined]  # missing in the stubs


def message_of(error: etree.XMLSyntaxError) -> str:
    """Return libxml2's message without the position: one printable line of limited length."""
    message = OWN_MESSAGES.get(code_of(error)) or str(error.msg).rsplit(", line ", 1)[0]
    flat = "".join(character if character.isprintable() else " " for character in message)
    return " ".join(flat.split())[:MAX_SHOWN_MESSAGE]
