"""Secrets that stand in files of their own: `project_token_file` beside `project_token`, as mounted secrets come.

It reads each file once and puts its text where the secret belongs. It never says what a file holds.
"""

from pathlib import Path
from typing import Any

from bridge.settings.complaints import Complaint
from bridge.settings.fields import FILE_SUFFIX, is_list, is_secret, tables
from bridge.settings.model import Settings

MAX_SECRET_BYTES = 256 * 1024  # IAM tokens are documented up to 100,000 characters; anything above is a wrong path


def read_secret_files(raw: dict[str, Any]) -> list[Complaint]:
    """Replace every `…_file` of a secret in `raw` by what the file holds; a list takes one secret a line."""
    complaints = []
    for key, table, values in list(tables(Settings, raw)):
        for name, field in table.model_fields.items():
            if not is_secret(field) or name + FILE_SUFFIX not in values:
                continue
            path = values.pop(name + FILE_SUFFIX)
            if path == "":
                continue
            place = f"{key}.{name}{FILE_SUFFIX}"
            if values.get(name):
                complaints.append(Complaint(place, f"is set, and {name} too.", "Keep one of the two."))
                continue
            try:
                text = _read(path)
            except _Unusable as unusable:
                complaints.append(Complaint(place, unusable.fault, unusable.remedy))
            else:
                values[name] = text.splitlines() if is_list(field) else text
    return complaints


class _Unusable(Exception):
    def __init__(self, fault: str, remedy: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.remedy = remedy


def _read(path: object) -> str:
    if not isinstance(path, str):
        raise _Unusable("is not text.", "Write the file's path in quotes.")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        text = content.decode("utf-8-sig")  # as in load.py
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise _Unusable(f"cannot be read: {reason}.", "Correct the path, or who may read it.") from None
    if len(content) > MAX_SECRET_BYTES:
        raise _Unusable("is too large to be a secret.", "Correct the path.")
    text = text.rstrip("\r\n")
    if not text.strip():
        raise _Unusable("is empty.", "Write the secret into it.")
    return text
