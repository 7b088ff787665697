"""What makes two builds, and two files of one build, the same: the keys of the ledger's unique indexes.

It knows no table.
"""

from hashlib import sha256

SOURCE = "codearts"
"""Who numbers the builds."""

UPLOAD = "upload"
"""The source of reports that were uploaded."""


CHECK = "check"
"""The source of what CodeArts Check says of a build: one report each, whatever it says."""


def build_key(job_id: str, build_no: int) -> str:
    """Return the key of a CodeArts build: `{job_id}/{build_no}`."""
    return f"{job_id}/{build_no}"


def dedupe_key(*, node_id: str, name: str, received_sha256: str, source: str = UPLOAD) -> bytes:
    """Return what makes two files of one build the same: source, node, full raw name and digest."""
    parts = [part.encode("utf-8", "surrogatepass") for part in (source, node_id, name, received_sha256)]
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
