"""The metadata of blobs: enough to recover a report whose row is missing.

They are ASCII and fit into the 2 KB that S3 allows ("Working with object metadata", S3 user guide).
"""

from collections.abc import Mapping
from urllib.parse import quote, unquote

from bridge.domain.build import BuildNo
from bridge.errors import CorruptBlob
from bridge.store.duplicates import SUBMITTED
from bridge.store.row_mapping import shown_name
from bridge.values import dataclass

MAX_NAME_BYTES = 640
"""Of an escaped name or caller: two of them and the other values stay below 2 KB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobMetadata:
    """The report of a blob, and its sizes and digests."""

    job_id: str
    build_no: BuildNo
    node_id: str
    name: str  # escaped and shortened for display; `dedupe_key` covers all of it
    dedupe_key: str  # hex: identifies the report if it is sent again
    caller: str
    size: int  # bytes as received
    received_sha256: str
    sent_size: int  # bytes of the blob
    sent_sha256: str

    def metadata(self) -> dict[str, str]:
        """Return names and values in ASCII."""
        submitted = {"source": SUBMITTED} if isinstance(self.build_no, str) else {}
        return submitted | {
            "job-id": escaped(self.job_id),
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
        """Return the value of `metadata`; raise CorruptBlob if they are not of a blob."""
        try:
            build_no = metadata["build-no"]
            return cls(
                job_id=unquote(metadata["job-id"]),
                build_no=build_no if metadata.get("source") == SUBMITTED else int(build_no),
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
            raise CorruptBlob("The metadata of a blob are not what the bridge writes. Check the spool.") from error


def escaped(text: str) -> str:
    """Return `text` percent-escaped as printable ASCII without spaces, cut between characters to MAX_NAME_BYTES."""
    escapes = [quote(character, safe="-_.~/!", errors="backslashreplace") for character in text]
    size = 0
    for count, escape in enumerate(escapes):
        size += len(escape)
        if size > MAX_NAME_BYTES:
            return "".join(escapes[:count])
    return "".join(escapes)
