"""Rows in pages are like a dictionary that is copied whole at each change; only what that costs differs."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.rows import PAGE_ROWS, Rows

MANY = 40 * PAGE_ROWS


@dataclass(frozen=True)
class Item:
    id: int
    value: int = 0


def is_odd(item):
    return item.value % 2 == 1


def total(items, factor):
    return sum(item.value for item in items) * factor


ids = st.integers(1, 5 * PAGE_ROWS)
items = st.builds(Item, id=ids, value=st.integers(0, 9))
steps = st.lists(st.one_of(st.tuples(st.just("put"), st.lists(items)), st.tuples(st.just("drop"), ids)), max_size=30)


def assert_same(rows, known):
    ordered = dict(sorted(known.items()))
    assert (list(rows), list(rows.values()), len(rows)) == (list(ordered), list(ordered.values()), len(ordered))
    assert rows == known
    assert rows.last_id == max(known, default=0)
    assert rows.where(is_odd) == list(filter(is_odd, ordered.values()))
    assert sum(rows.by_page(total, 3)) == total(ordered.values(), 3)
    assert all(len(page.rows) <= PAGE_ROWS for page in rows.pages)


@given(first=st.lists(items, max_size=3 * PAGE_ROWS, unique_by=lambda item: item.id), steps=steps)
def test_changed_rows_are_those_of_a_whole_copy_and_the_rows_before_stay_as_they_were(first, steps):
    known = {item.id: item for item in first}
    rows = Rows(first)
    assert_same(rows, known)
    for kind, what in steps:
        before, known_before = rows, dict(known)
        if kind == "put":
            rows = rows.with_rows(what)
            known |= {item.id: item for item in what}
        else:
            rows = rows.without(what)
            known.pop(what, None)
        assert_same(rows, known)
        assert_same(before, known_before)
        news = {item.id: item for item in rows.changed_since(before)}
        assert news == {key: item for key, item in known.items() if known_before.get(key) is not item}


@pytest.mark.parametrize("row_id", [0, 2, 4])
def test_a_row_that_is_missing_is_an_error(row_id):
    rows = Rows([Item(1), Item(3)])
    assert row_id not in rows
    with pytest.raises(KeyError):
        rows[row_id]
    with pytest.raises(KeyError):
        Rows()[row_id]


# -- what a change and a search cost -----------------------------------------------------------------------------------


def pages_in_common(one, other):
    return len({*map(id, one.pages)} & {*map(id, other.pages)})


@pytest.mark.parametrize("row_id", [1, MANY // 2, MANY])
def test_a_change_of_one_row_copies_one_page(row_id):
    rows = Rows(Item(number) for number in range(1, MANY + 1))
    assert pages_in_common(rows, rows.with_rows([Item(row_id, 1)])) == len(rows.pages) - 1
    assert pages_in_common(rows, rows.without(row_id)) == len(rows.pages) - 1


def test_new_rows_fill_the_last_page_and_more_follow():
    rows = Rows()
    for number in range(1, MANY + 1):
        rows = rows.with_rows([Item(number)])
    assert len(rows.pages) == MANY // PAGE_ROWS


def test_a_search_reads_only_the_pages_that_have_changed_since_the_last_one():
    read = []

    def is_read(item):
        read.append(item.id)
        return item.value == 1

    rows = Rows(Item(number) for number in range(1, MANY + 1))
    assert rows.where(is_read) == []
    assert len(read) == MANY
    read.clear()
    assert rows.where(is_read) == []
    assert read == []
    changed = rows.with_rows([Item(7, 1)])
    assert changed.where(is_read) == [Item(7, 1)]
    assert read == list(range(1, PAGE_ROWS + 1))
