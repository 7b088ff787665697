"""Reads the URL of a PostgreSQL ledger, without importing its driver."""

from urllib.parse import parse_qsl, urlsplit

SCHEMES = ("postgresql", "postgres")


def is_postgres(url: str) -> bool:
    """Return whether a `store.url` names a PostgreSQL ledger."""
    return url.partition(":")[0] in SCHEMES


def shown_url(url: str) -> str:
    """Return the URL for display: user, hosts and database, without password and query (except its host)."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    host = dict(parse_qsl(parts.query)).get("host", "")
    return f"postgresql://{user.partition(':')[0]}{at}{hosts}{parts.path}" + (f"?host={host}" if host else "")
