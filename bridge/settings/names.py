"""Names of tables in a list: `[[routes]]`, `[[callers.tokens]]`. They must differ.

It knows nothing of what the tables hold.
"""

from collections.abc import Iterator

from bridge.settings.complaints import Complaint

MAX_NAME = 64  # names stand in the ledger, metrics, pages and log lines


def unfit(key: str, name: str) -> Iterator[Complaint]:
    """Complain of a name that the ledger cannot keep, or nobody can read."""
    if len(name) > MAX_NAME or not name.isprintable():
        yield Complaint(f"{key}.name", "is too long or not printable.", f"Write at most {MAX_NAME} characters.")


def repeated(key: str, names: list[str]) -> Iterator[Complaint]:
    """Complain of each name that an earlier table of the list has; empty ones are another rule's."""
    for index, name in enumerate(names):
        if name and name in names[:index]:
            fault = f"is the name of {key}[{names.index(name)}] too."
            yield Complaint(f"{key}[{index}].name", fault, "Give each a name of its own.")
