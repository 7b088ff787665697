"""Where bytes may lie, in a folder or in S3, and what must hold between these settings.

It opens nothing. Names of buckets follow "Bucket naming rules" of the S3 user guide.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import urlsplit

from bridge.settings.callers import is_loopback
from bridge.settings.complaints import Complaint
from bridge.settings.model import Settings

SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9._=-]+/)*")
MAX_PREFIX = 512  # S3's keys have 1,024 bytes at most
IN_S3 = 'Write it like "s3://bucket/prefix", with letters, digits, "-", "_", "." and "=".'


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Place:
    """A bucket and what all keys there begin with: empty, or ending in a slash."""

    bucket: str
    prefix: str


def s3_place(text: str) -> S3Place | None:
    """Return the place in S3 that a setting names, None where it names a folder; raise ValueError for neither."""
    if not text.startswith(SCHEME):
        if not text or "://" in text:
            raise ValueError("is no folder.")
        return None
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    steps = set(prefix.split("/"))
    if (
        not _BUCKET.fullmatch(bucket)
        or not _PREFIX.fullmatch(prefix)
        or steps & {".", ".."}
        or len(prefix) > MAX_PREFIX
    ):
        raise ValueError("is no place in S3.")
    return S3Place(bucket=bucket, prefix=prefix)


def bytes_rules(settings: Settings) -> Iterator[Complaint]:
    """Complain of a spool, an archive or an S3 account that cannot be used."""
    store, s3 = settings.store, settings.s3
    well = True
    for key, text, example in (("spool", store.spool, "data/spool"), ("archive", store.archive, "data/archive")):
        try:
            if key == "spool" or text:
                s3_place(text)
        except ValueError as error:
            well = False
            yield Complaint(f"store.{key}", str(error), IN_S3 if SCHEME in text else f'Write it like "{example}".')
    if well and store.archive and _overlap(store.spool, store.archive):
        remedy = "Give each a folder or prefix of its own: the janitor of one would remove what the other keeps."
        yield Complaint("store.archive", "lies in the spool, or the spool in it.", remedy)
    if bool(s3.access_key_id.get_secret_value()) is not bool(s3.secret_access_key.get_secret_value()):
        remedy = "Set both, or neither where the machine's surroundings hold the keys."
        yield Complaint("s3", "has one of access_key_id and secret_access_key without the other.", remedy)


def bytes_advice(settings: Settings) -> Iterator[str]:
    """Advise on S3 that is set up and not used, or can be read on the way."""
    s3 = settings.s3
    in_s3 = SCHEME in settings.store.spool + settings.store.archive
    if not in_s3 and any((s3.endpoint_url, s3.region, s3.access_key_id.get_secret_value())):
        yield "s3: is not used, because neither store.spool nor store.archive is in S3. Take it out, or use it."
    parts = urlsplit(s3.endpoint_url)
    if in_s3 and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield "s3.endpoint_url: is plain http, so reports can be read on the way. Use https outside of trials."


def _overlap(spool: str, archive: str) -> bool:
    one, other = s3_place(spool), s3_place(archive)
    if one is None or other is None:
        if one is not other:
            return False
        first, second = PurePath(spool), PurePath(archive)
        return first.is_relative_to(second) or second.is_relative_to(first)
    below = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
    return one.bucket == other.bucket and below
