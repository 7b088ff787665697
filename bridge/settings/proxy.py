"""The rules of `[proxy]`: each entry can take some call.

It knows the settings only; how a path is matched stands in server/proxy/rights.py.
"""

import re
from collections.abc import Iterator

from bridge.settings.complaints import Complaint
from bridge.settings.model import Settings

_METHOD = re.compile(r"[A-Z]+")
_PATH = re.compile(r"(?:[A-Z]+ )?(?:\*|(?:/[^/?#\s]+)+/?)")


def proxy_rules(settings: Settings) -> Iterator[Complaint]:
    """Complain of paths and methods that no call could ever have."""
    for index, path in enumerate(settings.proxy.paths):
        if not _PATH.fullmatch(path):
            remedy = 'Write it like "/v1/job/*/*/build-info", "PUT /v1/jobs/*/result/refresh", or "*" alone.'
            yield Complaint(f"proxy.paths[{index}]", "is no path.", remedy)
    for index, method in enumerate(settings.proxy.methods):
        if not _METHOD.fullmatch(method):
            yield Complaint(f"proxy.methods[{index}]", "is no method.", 'Write it in capitals, like "GET".')
