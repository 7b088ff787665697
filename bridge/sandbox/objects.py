"""The objects that the stand-in of S3 holds.

It must not know HTTP, signatures, or what the objects are for.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object: digests and size always, bytes unless only digests are kept."""

    sha256: str
    etag: str
    size: int
    body: bytes | None


class ObjectReceiver:
    """An object on its way in, digested piece by piece."""

    def __init__(self, *, keep_bytes: bool) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)  # S3's ETag
        self._pieces: list[bytes] | None = [] if keep_bytes else None
        self.size = 0

    def feed(self, piece: bytes) -> None:
        self._sha256.update(piece)
        self._md5.update(piece)
        self.size += len(piece)
        if self._pieces is not None:
            self._pieces.append(piece)

    def done(self) -> StoredObject:
        body = None if self._pieces is None else b"".join(self._pieces)
        return StoredObject(
            sha256=self._sha256.hexdigest(), etag=f'"{self._md5.hexdigest()}"', size=self.size, body=body
        )


class ObjectMap:
    """Whole objects only, the last one written under a key wins."""

    def __init__(self) -> None:
        self._by_key: dict[str, StoredObject] = {}

    def put(self, key: str, stored: StoredObject) -> None:
        self._by_key[key] = stored

    def find(self, key: str) -> StoredObject | None:
        return self._by_key.get(key)

    def __len__(self) -> int:
        return len(self._by_key)
