"""What the worker goes by until the settings change: a visit keeps the shift in which it began.

It knows neither settings nor how a visit goes.
"""

from dataclasses import dataclass

from bridge.worker.calls import Calls
from bridge.worker.upstreams import Upstreams
from bridge.worker.visit import Desk


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """Desk, calls and upstreams by the same settings; `lanes` are the routes that builds stand in line for."""

    desk: Desk
    calls: Calls
    upstreams: Upstreams
    lanes: tuple[str, ...]
