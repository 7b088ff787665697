"""Metadata of blobs with defaults for tests, and the content of a blob on disk without its metadata."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from bridge.store.blobs.disk import split
from bridge.store.blobs.metadata import BlobMetadata


def label(content: bytes = b"", **other: Any) -> BlobMetadata:
    """Return the label of a report that is sent as it came."""
    digest = sha256(content).hexdigest()
    values = {
        "job_id": "a" * 32,
        "build_no": 7,
        "node_id": "default",
        "name": "junit.xml",
        "dedupe_key": sha256(b"key").hexdigest(),
        "caller": "ci",
        "size": len(content),
        "received_sha256": digest,
        "sent_size": len(content),
        "sent_sha256": digest,
        **other,
    }
    return BlobMetadata(**values)


def content_of(path: Path) -> bytes:
    """Return the bytes of a blob on disk without its label."""
    with path.open("rb", buffering=0) as file:
        size, _ = split(file)
        return file.read(size)
