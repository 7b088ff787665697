"""Writes what a parser hears as UTF-8 XML: the way out of everything that must leave elements out or close them.

It knows names, namespaces and escapes; it decides nothing about what is worth writing.
"""

from collections.abc import Mapping
from typing import Final, cast

from lxml import etree

DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>'
XML_NAMESPACE: Final = "http://www.w3.org/XML/1998/namespace"
TEXT_ESCAPES: Final = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;"))
VALUE_ESCAPES: Final = (*TEXT_ESCAPES, ('"', "&quot;"), ("\t", "&#9;"), ("\n", "&#10;"))


def escape(text: str, escapes: tuple[tuple[str, str], ...] = TEXT_ESCAPES) -> str:
    """Write text so that a parser reads exactly it again, also line ends that XML would make others of."""
    for character, reference in escapes:
        if character in text:
            text = text.replace(character, reference)
    return text


def parser_into(target: "XmlWriter") -> etree.XMLParser:
    """Make the gate's parser, for documents whose opening the gate has found free of entities.

    Unlike the gate's it resolves those that XML itself has: else lxml gives `&amp;` in a value as `&#38;`.
    """
    parts = cast("etree.ParserTarget", target)
    return etree.XMLParser(target=parts, huge_tree=True, resolve_entities=True, no_network=True)


class XmlWriter:
    """Target of a streaming lxml parser: gives back what it hears, in constant memory.

    Elements, attributes, namespaces, text, comments and instructions stay. CDATA sections become escaped text, the
    DOCTYPE and blanks outside of the root go, and so does a prefix that nobody declared: lxml does not tell of them.
    """

    def __init__(self) -> None:
        self._out = [DECLARATION, "\n"]
        self._open: list[str] = []  # names as they were written
        self._scopes = [{"": "", "xml": XML_NAMESPACE}]  # namespaces by prefix, of each open element
        self._in_tag = False  # the last start tag still lacks its end, so that an empty element stays one

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        self._end_tag()
        declared = {prefix or "": uri for prefix, uri in nsmap.items()}
        if "}" not in tag and declared.get("", self._scopes[-1][""]):
            declared[""] = ""
        scope = {**self._scopes[-1], **declared} if declared else self._scopes[-1]
        name = _qualified(tag, scope)
        pairs = [(f"xmlns:{prefix}" if prefix else "xmlns", uri) for prefix, uri in declared.items()]
        pairs += [(_qualified(key, scope, attribute=True), value) for key, value in attributes.items()]
        self._out += [f"<{name}", *(f' {key}="{escape(value, VALUE_ESCAPES)}"' for key, value in pairs)]
        self._open.append(name)
        self._scopes.append(scope)
        self._in_tag = True

    def end(self, _tag: str) -> None:
        name = self._open.pop()
        self._scopes.pop()
        self._out.append("/>" if self._in_tag else f"</{name}>")
        self._in_tag = False

    def data(self, text: str) -> None:
        self._end_tag()
        self._out.append(escape(text))

    def comment(self, text: str) -> None:
        self._end_tag()
        self._out.append(f"<!--{text}-->")

    def pi(self, name: str, text: str | None = None) -> None:
        self._end_tag()
        self._out.append(f"<?{name} {text}?>" if text else f"<?{name}?>")

    def close(self) -> None:
        """Nothing is left to do; lxml asks every target for it."""

    def close_open(self) -> None:
        """End every element that is still open."""
        while self._open:
            self.end("")

    def take(self) -> bytes:
        """Give what was written since the last call."""
        written = "".join(self._out).encode()
        self._out.clear()
        return written

    def _end_tag(self) -> None:
        if self._in_tag:
            self._out.append(">")
            self._in_tag = False


def _qualified(tag: str, scope: Mapping[str, str], *, attribute: bool = False) -> str:
    uri, brace, name = tag.rpartition("}")
    if not brace:
        return tag
    for prefix, known in scope.items():
        if known == uri[1:] and (prefix or not attribute):
            return f"{prefix}:{name}" if prefix else name
    raise AssertionError(tag)  # libxml2 gives no name in a namespace that is not in scope
