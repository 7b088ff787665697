"""The rows of one table of a build, by id and in the order of their ids, in pages that never change.

A large build has tens of thousands of rows, of which each step changes a few. A changed copy shares all pages but those
of the changed rows, and a page keeps what was found in it. So a change and a search cost about as much in a large build
as in a small one.

    deliveries = Rows([first, second])
    deliveries.where(is_pending)
    deliveries = deliveries.with_rows([replace(first, attempts=1)]).without(second.id)
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, ValuesView
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Final, Generic, Protocol, TypeVar

PAGE_ROWS: Final = 64
"""Rows of a page at most. A change copies one page and a list of all pages: of 20,000 rows 64, and 313 references."""


class HasId(Protocol):
    """A row of the ledger."""

    @property
    def id(self) -> int: ...


Row = TypeVar("Row", bound=HasId)
Found = TypeVar("Found")


class Page(Generic[Row]):
    """Rows by id, in the order of their ids, and what was found in them."""

    __slots__ = ("found", "rows")

    def __init__(self, rows: dict[int, Row]) -> None:
        self.rows = rows
        self.found: dict[Hashable, Any] = {}


class Rows(Mapping[int, Row]):
    """Rows by id, in the order of their ids. They never change: `with_rows` and `without` return copies."""

    __slots__ = ("_first_ids", "_length", "pages")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.pages = _pages_of({row.id: row for row in sorted(rows, key=attrgetter("id"))})
        self._first_ids = [next(iter(page.rows)) for page in self.pages]
        self._length = sum(len(page.rows) for page in self.pages)

    def __getitem__(self, row_id: int) -> Row:
        at = self._page_of(row_id)
        if at < 0:
            raise KeyError(row_id)
        return self.pages[at].rows[row_id]

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(page.rows for page in self.pages)

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Rows({list(self.values())!r})"

    @property
    def last_id(self) -> int:
        """Return the greatest id; 0 if there are no rows."""
        return next(reversed(self.pages[-1].rows)) if self.pages else 0

    def values(self) -> ValuesView[Row]:
        """Return the rows."""
        return _Values(self)

    def by_page(self, find: Callable[..., Found], *arguments: Hashable) -> Iterator[Found]:
        """Yield what `find(rows, *arguments)` returns for the rows of each page.

        The page keeps it. So `find` and what it is given are the same objects in each call, and no new functions.
        """
        key = (find, *arguments)
        for page in self.pages:
            if key not in page.found:
                page.found[key] = find(page.rows.values(), *arguments)
            yield page.found[key]

    def where(self, condition: Callable[[Row], bool]) -> list[Row]:
        """Return the rows for which `condition` is true, which depends on the row alone and is no new function."""
        return [*chain.from_iterable(self.by_page(_filtered, condition))]

    def changed_since(self, before: "Rows[Row]") -> Iterator[Row]:
        """Yield the rows that `before` does not have, or has with other values."""
        shared = set(map(id, before.pages))
        for page in self.pages:
            if id(page) not in shared:
                yield from (row for row in page.rows.values() if before.get(row.id) is not row)

    # -- copies with changes ---------------------------------------------------------------------------------------

    def with_rows(self, rows: Iterable[Row]) -> "Rows[Row]":
        """Return a copy with new rows, and with those that replace the row of the same id."""
        of_page: defaultdict[int, dict[int, Row]] = defaultdict(dict)
        for row in rows:
            of_page[max(self._page_of(row.id), 0)][row.id] = row
        return self._copy({at: _merged(self._rows_at(at), of_page[at]) for at in of_page})

    def without(self, row_id: int) -> "Rows[Row]":
        """Return a copy without the row of this id, which may be missing."""
        at = max(self._page_of(row_id), 0)
        return self._copy({at: {key: row for key, row in self._rows_at(at).items() if key != row_id}})

    def _page_of(self, row_id: int) -> int:
        """Return the index of the page that has the row, if any has; -1 if its id is before all others."""
        return bisect_right(self._first_ids, row_id) - 1

    def _rows_at(self, at: int) -> dict[int, Row]:
        return self.pages[at].rows if self.pages else {}

    def _copy(self, rows_at: Mapping[int, dict[int, Row]]) -> "Rows[Row]":
        """Return a copy with other rows in pages, by their index."""
        copy = object.__new__(type(self))
        copy.pages, copy._first_ids, copy._length = self.pages.copy(), self._first_ids.copy(), self._length
        for at, rows in sorted(rows_at.items(), reverse=True):  # from the end: a page may become none or several
            pages = _pages_of(rows)
            copy.pages[at : at + 1] = pages
            copy._first_ids[at : at + 1] = [next(iter(page.rows)) for page in pages]
            copy._length += len(rows) - len(self._rows_at(at))
        return copy


class _Values(ValuesView[Row]):
    """The rows in their order, without a search for each one."""

    _mapping: Rows[Row]

    def __iter__(self) -> Iterator[Row]:
        return chain.from_iterable(page.rows.values() for page in self._mapping.pages)


def _pages_of(rows: dict[int, Row]) -> list[Page[Row]]:
    """Return the pages of rows that are in the order of their ids."""
    if len(rows) <= PAGE_ROWS:
        return [Page(rows)] if rows else []
    items = iter(rows.items())
    return [Page(dict(islice(items, PAGE_ROWS))) for _ in range(0, len(rows), PAGE_ROWS)]


def _merged(rows: dict[int, Row], others: dict[int, Row]) -> dict[int, Row]:
    """Return rows with `others`, which replace those of the same id, in the order of their ids."""
    merged = rows | others
    return merged if len(merged) == len(rows) else dict(sorted(merged.items()))


def _filtered(rows: Iterable[Row], condition: Callable[[Row], bool]) -> tuple[Row, ...]:
    return tuple(filter(condition, rows))
