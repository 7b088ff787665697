#!/usr/bin/env bash
# google-re2 1.1.20251105, Google's Python module for RE2, "a drop-in replacement for the re module".
#
# A match is replaced by text that is not ASCII.
#
# Expected: what Python's re returns: the text as it was given. The module's documentation names the differences to re,
#           and this is none of them.
# Seen: "é" becomes "Ã©", "中" becomes "ä¸\xad". Match.expand decodes the template with codecs.unicode_escape_decode, which
#       encodes a str as UTF-8 and reads the bytes as Latin-1. A function as replacement is not affected, nor is a
#       template that comes from a group of the match.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check google-re2==1.1.20251105
"$folder/venv/bin/python" - <<'PY'
import re

import re2

for text in ("é", "中", "€"):
    garbled = text.encode().decode("latin-1")
    seen = re2.sub("a", text, "a"), re2.sub("a", lambda match, text=text: text, "a"), re2.sub("(.)", r"\1", text)
    print(ascii(text), "becomes", ascii(seen[0]))
    assert re.sub("a", text, "a") == text
    assert seen == (garbled, text, text), f"changed: {seen}"
print("as described: text of a replacement is read as Latin-1")
PY
