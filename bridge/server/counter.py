"""What answers CI until the settings change: each request keeps the counter that it came to.

It knows no handler's inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.server.hook import Hook
from bridge.server.http.forwarded import Network
from bridge.server.proxy.proxy import Proxy
from bridge.server.status import Status
from bridge.server.upload.intake import Intake


@dataclass(frozen=True, kw_only=True, slots=True)
class Counter:
    """The handlers of the server listener; without a `proxy`, other paths of CodeArts are answered 404."""

    intake: Intake
    status: Status
    hook: Hook
    proxy: Proxy | None
    trusted_proxies: Sequence[Network]
