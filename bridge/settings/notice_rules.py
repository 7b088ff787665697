"""Rules of `[[notices]]`, and warnings about them."""

import base64
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from bridge.domain.no_proxy import NoProxyEntry, read_no_proxy_entry
from bridge.domain.notices import EventKind, is_inside
from bridge.settings.model import FILE_SUFFIX, NoticeSettings, OutboundSettings, Settings
from bridge.settings.problems import Problem, nearest

UNSIGNED: Final = ("slack", "wecom")
VENDOR_HOSTS: Final = {
    "hooks.slack.com": "slack",
    "open.feishu.cn": "feishu",
    "open.larksuite.com": "feishu",
    "oapi.dingtalk.com": "dingtalk",
    "qyapi.weixin.qq.com": "wecom",
}
WHSEC: Final = "whsec_"


def notice_rules(settings: Settings) -> Iterator[Problem]:
    """Yield the problems of `[[notices]]`. No message repeats an address, because it is a secret."""
    seen: dict[str, int] = {}
    inside = own_network(settings.outbound)
    for index, notice in enumerate(settings.notices):
        key, url = f"notices[{index}]", notice.url.get_secret_value()
        if not url:
            yield Problem(f"{key}.url", "is missing.", f"Set it here, or in url{FILE_SUFFIX}.")
        elif not _is_webhook_url(url):
            yield Problem(f"{key}.url", "is not an address.", "Copy the address of the webhook, with https.")
        elif not url.startswith("https:") and not is_inside(url, inside):
            remedy = "Use https. For a host of your own network, use its address, or add it to outbound.no_proxy."
            yield Problem(f"{key}.url", "is not https, so its key would cross the network unencrypted.", remedy)
        yield from _secret(key, notice)
        for number, route in enumerate(notice.routes):
            names = [each.name for each in settings.routes]
            if route not in names:
                remedy = nearest(route, names, otherwise="Use the name of a route.")
                yield Problem(f"{key}.routes[{number}]", "is not the name of a route.", remedy)
        first = seen.setdefault(url, index)
        if url and first != index and _sending(settings.notices[first]) != _sending(notice):
            fault = f"has the url of notices[{first}], and another format or secret."
            yield Problem(key, fault, "Use one format and secret for each url.")


def _sending(notice: NoticeSettings) -> tuple[str, str]:
    return notice.format, notice.secret.get_secret_value()


def _secret(key: str, notice: NoticeSettings) -> Iterator[Problem]:
    secret = notice.secret.get_secret_value()
    if secret and notice.format in UNSIGNED:
        fault = f'is set, although the format "{notice.format}" has no signature.'
        yield Problem(f"{key}.secret", fault, "Remove it. The url alone is the key.")
    elif notice.format == "json" and secret.startswith(WHSEC):
        try:
            base64.b64decode(secret.removeprefix(WHSEC), validate=True)
        except ValueError:
            yield Problem(f"{key}.secret", "begins with whsec_, and no base64 follows.", "Copy it again.")


def _is_webhook_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0  # raises ValueError if it is not a number
    except ValueError:
        return False
    is_clean = url.isprintable() and url.isascii() and not set(' "<>\\^`{|}') & set(url)
    plain = parts.username is None and not parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port_is_valid and is_clean and plain


def own_network(outbound: OutboundSettings) -> tuple[NoProxyEntry, ...]:
    """Return the valid entries of `outbound.no_proxy`; the others are reported by their own rule."""
    entries = []
    for entry in outbound.no_proxy:
        try:
            entries.append(read_no_proxy_entry(entry))
        except ValueError:
            continue
    return tuple(entries)


def notice_warnings(settings: Settings) -> Iterator[str]:
    """Yield a warning for each table whose address belongs to another format, or that will never send anything."""
    for index, notice in enumerate(settings.notices):
        vendor = VENDOR_HOSTS.get(urlsplit(notice.url.get_secret_value()).hostname or "")
        if vendor and vendor != notice.format:
            yield f'notices[{index}].format: is "{notice.format}", but the address is of "{vendor}". Set format.'
        if notice.routes and set(notice.events) == {EventKind.CERTIFICATE_ENDS}:
            yield f"notices[{index}].routes: its events belong to no route, so none is sent. Remove routes."
