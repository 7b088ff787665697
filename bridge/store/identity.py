"""What makes two reports the same: the key by which a report that is sent again is known.

It knows no table.
"""

from hashlib import sha256

UPLOAD = "upload"
"""The source of reports that were uploaded."""


def dedupe_key(*, node_id: str, name: str, received_sha256: str, source: str = UPLOAD) -> bytes:
    """Return what makes two reports of one build the same: source, node, full raw name and digest."""
    digest = sha256()
    for part in (source, node_id, name, received_sha256):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()
