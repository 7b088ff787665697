"""What both listeners use until the next reload. A request keeps the configuration it began with."""

from collections.abc import Sequence

from bridge.client.codearts import CodeArts
from bridge.domain.routing import Route
from bridge.server.admin.access import AdminAccess
from bridge.server.build_status import BuildStatusHandler
from bridge.server.http.requests import Network
from bridge.server.proxy.handler import ProxyHandler
from bridge.server.submission.api import SubmissionHandler
from bridge.server.submission.storage import Storage
from bridge.server.upload.handler import UploadHandler
from bridge.server.upload.resender import QuarantineResender
from bridge.server.webhook import WebhookHandler
from bridge.values import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """The handlers, and what the admin API uses."""

    upload: UploadHandler
    submission: SubmissionHandler
    storage: Storage  # of the files of submissions
    build_status: BuildStatusHandler
    webhook: WebhookHandler
    proxy: ProxyHandler | None  # None: other paths of CodeArts are answered 404
    trusted_proxies: Sequence[Network]
    access: AdminAccess  # to the admin listener
    routes: Sequence[Route]
    resender: QuarantineResender
    codearts: CodeArts | None
    max_finalize_delay_us: int
