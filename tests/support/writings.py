"""The forms in which a program may repeat a text that it was sent."""

import base64
import html
import json
import quopri
from urllib.parse import quote, quote_plus


def percent_of_all(text: str) -> str:
    return "".join(f"%{octet:02x}" for octet in text.encode())


def entities_of_all(text: str) -> str:
    return "".join(f"&#x{ord(char):x};" for char in text)


def escapes_of_all(text: str) -> str:
    return "".join(f"\\u{ord(char):04X}" for char in text)


WRITINGS = {
    "as it is": str,
    "percent": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "percent, every byte": percent_of_all,
    "percent, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "HTML": html.escape,
    "HTML, decimal entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "HTML, hexadecimal entities": entities_of_all,
    "HTML, twice": lambda text: html.escape(html.escape(text)),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, ASCII escapes": escapes_of_all,
    "JSON, twice": lambda text: json.dumps(json.dumps(text))[1:-1],
    "JSON with \\/": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "repr": lambda text: repr(text)[1:-1],
    "repr of bytes": lambda text: repr(text.encode())[2:-1],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 of user and password": lambda text: base64.b64encode(f"someone:{text}".encode()).decode(),
    "base64 of user, one longer": lambda text: base64.b64encode(f"some.one:{text}@x".encode()).decode(),
    "base64 of user, two longer": lambda text: base64.b64encode(f"some.one.:{text}@xy".encode()).decode(),
    "base64 in percent": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
    "base64 in lines": lambda text: base64.encodebytes(text.encode() * 3).decode(),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "hex with colons": lambda text: text.encode().hex(":"),
    "HEX with colons": lambda text: text.encode().hex(":").upper(),
    "octal escapes": lambda text: "".join(f"\\{octet:03o}" for octet in text.encode()),
    "quoted-printable": lambda text: quopri.encodestring(text.encode()).decode().replace("=\n", ""),
    "quoted-printable, every byte": lambda text: "".join(f"={octet:02X}" for octet in text.encode()),
    "upper case": str.upper,
    "split by quotes": lambda text: '" + "'.join([text[:7], text[7:12], text[12:]]),
    "split over lines": lambda text: "\n  ".join([text[:7], text[7:12], text[12:]]),
    "quoted by character": lambda text: ", ".join(f"'{char}'" for char in text),
}
