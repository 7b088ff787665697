"""Headers for downloads of uploaded bytes, so that a browser saves them under a safe name and never renders them.

File names are encoded as in RFC 6266 (https://www.rfc-editor.org/rfc/rfc6266) and RFC 8187.
"""

from typing import Final
from urllib.parse import quote

MAX_FILE_NAME_CHARACTERS: Final = 100  # file systems permit 255 bytes, and the id is in front
SAFE_CHARACTERS: Final = "._- ()"  # beside letters and digits
HEADERS: Final = {
    "Content-Type": "application/octet-stream",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def file_name(prefix: str, name: str) -> str:
    """Return a file name for `name` that cannot act as a path, a header or a command."""
    inner = name.replace("\\", "/").replace("!", "/").rpartition("/")[2]
    safe = "".join(letter if letter.isalnum() or letter in SAFE_CHARACTERS else "_" for letter in inner)
    return f"{prefix}-{safe[-MAX_FILE_NAME_CHARACTERS:]}"


def disposition(name: str) -> str:
    """Return the Content-Disposition that saves a download as `name`, which must come from `file_name`.

    It has both forms of the name, as RFC 6266, appendix D, advises: curl reads only the plain one.
    """
    plain = "".join(letter if letter.isascii() else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
