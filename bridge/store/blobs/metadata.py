"""What stands beside the bytes of a report, wherever they lie: enough to know them again when no row does.

It knows neither disks nor S3. As metadata a label is ASCII and fits into the 2 KB that S3 gives ("Working with object
metadata", S3 user guide).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from bridge.errors import CorruptBlob
from bridge.store.row_mapping import shown_name

MAX_NAME_BYTES = 640
"""Of a name or a caller, escaped: with all else that a label holds, two of them stay below 2 KB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobMetadata:
    """Whose report a blob is, and what its bytes are."""

    job_id: str
    build_no: int
    node_id: str
    name: str  # as people see it: escaped and cut; `dedupe_key` holds all of it
    dedupe_key: str  # hex: by it the report is known when it is sent again
    caller: str
    size: int  # bytes as received
    received_sha256: str
    sent_size: int  # bytes of the blob
    sent_sha256: str

    def metadata(self) -> dict[str, str]:
        """Return the label as names and values in ASCII."""
        return {
            "job-id": self.job_id,
            "build-no": str(self.build_no),
            "node-id": self.node_id,
            "name": escaped(shown_name(self.name)),
            "dedupe-key": self.dedupe_key,
            "caller": escaped(self.caller),
            "size": str(self.size),
            "received-sha256": self.received_sha256,
            "sent-size": str(self.sent_size),
            "sent-sha256": self.sent_sha256,
        }

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> "BlobMetadata":
        """Return the label that became `metadata`; raise DamagedBlob where it is none."""
        try:
            return cls(
                job_id=metadata["job-id"],
                build_no=int(metadata["build-no"]),
                node_id=metadata["node-id"],
                name=unquote(metadata["name"]),
                dedupe_key=metadata["dedupe-key"],
                caller=unquote(metadata["caller"]),
                size=int(metadata["size"]),
                received_sha256=metadata["received-sha256"],
                sent_size=int(metadata["sent-size"]),
                sent_sha256=metadata["sent-sha256"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptBlob("What stands beside a blob is not what the bridge writes there. Look at it.") from error


def escaped(text: str) -> str:
    """Return `text` as visible ASCII without a blank, percent-escaped, at most MAX_NAME_BYTES and no character cut."""
    escapes = [quote(character, safe="-_.~/!", errors="backslashreplace") for character in text]
    size = 0
    for count, escape in enumerate(escapes):
        size += len(escape)
        if size > MAX_NAME_BYTES:
            return "".join(escapes[:count])
    return "".join(escapes)
