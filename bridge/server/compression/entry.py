"""One entry of an archive, whatever kind of archive it stands in.

It knows no format.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

PIECE_BYTES: Final = 64 * 1024  # read at once


class ArchiveMember(NamedTuple):
    """A name as the archive has it, and the file's bytes in pieces; None for what is no file."""

    name: str
    chunks: Iterator[bytes] | None  # folders, links and devices have none
