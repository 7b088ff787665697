"""Names of tables in a list: `[[routes]]`, `[[callers.tokens]]`. They must differ.

It knows nothing of what the tables hold.
"""

from collections.abc import Iterator

from bridge.settings.complaints import Complaint


def repeated(key: str, names: list[str]) -> Iterator[Complaint]:
    """Complain of each name that an earlier table of the list has; empty ones are another rule's."""
    for index, name in enumerate(names):
        if name and name in names[:index]:
            fault = f"is the name of {key}[{names.index(name)}] too."
            yield Complaint(f"{key}[{index}].name", fault, "Give each a name of its own.")
