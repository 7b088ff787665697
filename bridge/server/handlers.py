"""What answers CI until the settings change: each request keeps the counter that it came to.

It knows no handler's inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.server.build_status import BuildStatusHandler
from bridge.server.http.forwarded import Network
from bridge.server.proxy.handler import ProxyHandler
from bridge.server.upload.handler import UploadHandler
from bridge.server.webhook import WebhookHandler


@dataclass(frozen=True, kw_only=True, slots=True)
class Handlers:
    """The handlers of the server listener; without a `proxy`, other paths of CodeArts are answered 404."""

    intake: UploadHandler
    status: BuildStatusHandler
    hook: WebhookHandler
    proxy: ProxyHandler | None
    trusted_proxies: Sequence[Network]
