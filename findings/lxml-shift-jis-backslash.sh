#!/usr/bin/env bash
# lxml 6.1.3 from its Linux wheel (libxml2 2.14.6 with GNU libiconv inside), Python 3.11 or later.
#
# An XML document declares Shift_JIS and has a Windows path or a tilde in an attribute. The same bytes are decoded by
# Python's codec shift_jis, and declared in EUC-JP for comparison.
#
# Expected: the backslash and the tilde, as Python's shift_jis, WHATWG's Encoding Standard and every browser read the
#           bytes 0x5C and 0x7E.
# Seen: U+00A5 (yen sign) and U+203E (overline), without any error, so that "C:\a~1" is read as "C:¥a‾1". Escapes such
#       as "\n" in test names and stack traces change too. In documents that declare cp932 (what Windows writes) both
#       stay, but the full-width tilde 0x8160 becomes U+301C instead of U+FF5E.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: lxml==6.1.3
"$folder/venv/bin/python" - <<'PY'
from lxml import etree


def read(name, data):
    document = b'<?xml version="1.0" encoding="' + name.encode() + b'"?><a b="' + data + b'"/>'
    return etree.fromstring(document).get("b")


PATH = b"C:\\a~1"
assert PATH.decode("shift_jis") == read("EUC-JP", PATH) == read("cp932", PATH) == "C:\\a~1"
assert b"\x81\x60".decode("cp932") == "\uff5e"
seen = read("Shift_JIS", PATH), read("cp932", b"\x81\x60")
if seen != ("C:\u00a5a\u203e1", "\u301c"):
    raise SystemExit(f"changed: {seen!r}")
print("as described: lxml reads a backslash in Shift_JIS as a yen sign")
PY
