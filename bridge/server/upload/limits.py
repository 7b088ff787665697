"""What one upload may be, and what is left of that while it comes in.

It knows numbers and no bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bridge.errors import TooLarge
from bridge.server.http.responses import escape_for_display

RoomLeft = Callable[[int], None]
"""Counts bytes that are about to be kept; raises Unavailable when the disks have no room for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadLimits:
    """What one upload may be, from `[server]`."""

    max_report_size: int  # bytes of one file
    max_request_size: int  # bytes of the whole body; as many again may come out of what is compressed or packed in it
    max_files: int


class UploadBudget:
    """What all files of an upload may come to together, in `units` (such as "unpacked bytes")."""

    def __init__(self, most: int, units: str) -> None:
        self._most = most
        self._left = most
        self._units = units

    def take(self, amount: int, name: str) -> None:
        """Count `amount` for the file `name`; raise TooLarge when the upload comes to too much with it."""
        self._left -= amount
        if self._left < 0:
            raise TooLarge(
                f"{escape_for_display(name)}: with it the upload comes to more than {self._most} {self._units}. "
                "Send the reports in several uploads."
            )
