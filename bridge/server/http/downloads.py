"""How bytes that came from outside are handed out: to be saved under a harmless name, and taken for nothing more.

It knows neither what they are nor where they lie. Names go out as RFC 6266 and RFC 8187 have it.
"""

from typing import Final
from urllib.parse import quote

MAX_FILE_NAME_CHARACTERS: Final = 100  # every file system takes 255 bytes, and the id stands before it
HARMLESS: Final = "._- ()"  # in a file's name beside letters and digits
HEADERS: Final = {
    "Content-Type": "application/octet-stream",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def file_name(prefix: str, name: str) -> str:
    """Return the name under which a file is saved: nothing of `name` can be a path, a header or a command."""
    inner = name.replace("\\", "/").replace("!", "/").rpartition("/")[2]
    safe = "".join(letter if letter.isalnum() or letter in HARMLESS else "_" for letter in inner)
    return f"{prefix}-{safe[-MAX_FILE_NAME_CHARACTERS:]}"


def disposition(name: str) -> str:
    """Return the Content-Disposition that saves what follows as `name`, which `file_name` gave.

    It says it twice, as RFC 6266 advises (appendix D): curl reads the plain form alone.
    """
    plain = "".join(letter if letter.isascii() else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
