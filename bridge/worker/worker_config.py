"""What the worker goes by until the settings change: a visit keeps the shift in which it began.

It knows neither settings nor how a visit goes.
"""

from dataclasses import dataclass

from bridge.worker.call_executor import UpstreamCallExecutor
from bridge.worker.clients import UpstreamClients
from bridge.worker.reconcile import ReconcilerContext


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """Desk, calls and upstreams by the same settings; `lanes` are the routes that builds stand in line for."""

    desk: ReconcilerContext
    calls: UpstreamCallExecutor
    upstreams: UpstreamClients
    lanes: tuple[str, ...]
