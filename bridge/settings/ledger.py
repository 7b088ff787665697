"""The rules of `store.url`: a file of SQLite's, or a PostgreSQL that all who read the URL find alike.

It knows the settings only. Where a password ends has one reading: what is taken for a host is shown.
"""

import re
from collections.abc import Iterator

from bridge.settings.complaints import Complaint
from bridge.settings.model import Settings

KEY = "store.url"
MAX_PORT = 65_535

_SQLITE = re.compile(r"sqlite:///[^:?#][^?#]*")
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^@:/?#,\[\]\s]*)(?::[0-9]{1,5})?"
_PAIR = r"[^#&=]+=[^#&]*"
_POSTGRES = re.compile(
    rf"postgres(?:ql)?://(?:[^/?#]*@)?(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/[^@?#]*)?(?:\?{_PAIR}(?:&{_PAIR})*)?"
)


def ledger_rules(settings: Settings) -> Iterator[Complaint]:
    """Complain of a URL that names no ledger, or perhaps another one than was meant."""
    url = settings.store.url
    match url.partition(":")[0]:
        case "sqlite":
            if not _SQLITE.fullmatch(url):
                remedy = 'Write it like "sqlite:///data/bridge.db", with nothing behind the file\'s name.'
                yield Complaint(KEY, "names no file.", remedy)
        case "postgresql" | "postgres":
            if not _is_postgres(url):
                remedy = 'Write it like "postgresql://bridge@host/bridge", with % escapes in names and password.'
                yield Complaint(KEY, "is no URL of PostgreSQL.", remedy)
        case _:
            remedy = 'Write it like "sqlite:///data/bridge.db", or "postgresql://bridge@host/bridge".'
            yield Complaint(KEY, "is no ledger.", remedy)


def _is_postgres(url: str) -> bool:
    found = _POSTGRES.fullmatch(url)
    ports = re.findall(r":([0-9]+)(?=,|$)", found["hosts"]) if found else ()
    return found is not None and all(int(port) <= MAX_PORT for port in ports)
