"""How a blob's label stands on disk: behind the bytes, in the same file, so that one fsync and one rename keep both.

It knows no folder. Behind the bytes come the label as JSON, the length of that, and a mark: a file that ends in
anything else was cut.
"""

import json
import os
from io import FileIO

from bridge.errors import DamagedBlob
from bridge.store.spools.labels import Label

MARK = b"bridge 1"
LENGTH_BYTES = 4
MAX_LABEL_BYTES = 4096  # twice what a label may be: more is none
CUT = "A blob in the spool does not end as it was written. Check its disk."


def footer(label: Label) -> bytes:
    """Return what is written behind the bytes of a blob."""
    text = json.dumps(label.metadata()).encode("ascii")
    return text + len(text).to_bytes(LENGTH_BYTES, "big") + MARK


def split(file: FileIO) -> tuple[int, Label]:
    """Return the number of bytes before the footer, and the label; raise DamagedBlob where there is no footer."""
    total = os.fstat(file.fileno()).st_size
    fixed = LENGTH_BYTES + len(MARK)
    end = os.pread(file.fileno(), fixed, max(0, total - fixed))
    length = int.from_bytes(end[:LENGTH_BYTES], "big")
    size = total - fixed - length
    if end[LENGTH_BYTES:] != MARK or length > MAX_LABEL_BYTES or size < 0:
        raise DamagedBlob(CUT)
    try:
        metadata = json.loads(os.pread(file.fileno(), length, size))
    except ValueError as error:
        raise DamagedBlob(CUT) from error
    return size, Label.read(metadata)
