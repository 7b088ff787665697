"""Core statements that are compiled once for each dialect and executed by the driver itself.

    FIND = Statement(select(builds.c.id).where(builds.c.key == bindparam("key")))
    FIND.rows(connection, {"key": "…"})

What SQLAlchemy does for each execution costs ten times the work of the database itself. Statements of the ledger's hot
path are executed this way; all others as usual, on the same connection and in the same transaction.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Dialect,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

Converter = Callable[[Any], Any]
Values = Mapping[str, Any]
Row = tuple[Any, ...]

NO_VALUES: Final[Values] = {}


class Statement:
    """A Core statement with named parameters; it must not have expanding ones (`is_one_of` replaces them).

    `build` is the statement, or returns it for the name of a dialect if they differ in it (`own_insert`, `each_of`).
    """

    def __init__(self, build: Any) -> None:
        self._build = build
        self._by_dialect: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, values: Values = NO_VALUES) -> list[Row]:
        """Execute it and return its rows."""
        compiled = self._of(connection)
        rows: list[Row] = _execute(connection, compiled.text, compiled.bind(values)).fetchall()
        return compiled.converted(rows) if compiled.converters else rows

    def converted(self, connection: Connection, rows: list[Row]) -> list[Row]:
        """Return rows of the driver with the values that the columns' types stand for."""
        compiled = self._of(connection)
        return compiled.converted(rows) if compiled.converters else rows

    def first(self, connection: Connection, values: Values = NO_VALUES) -> Row | None:
        """Execute it and return its first row."""
        return next(iter(self.rows(connection, values)), None)

    def run(self, connection: Connection, values: Values = NO_VALUES) -> int:
        """Execute it and return the number of rows that it changed."""
        compiled = self._of(connection)
        changed: int = _execute(connection, compiled.text, compiled.bind(values)).rowcount
        return changed

    def run_each(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Execute it once for each of `rows`, which takes one round trip."""
        compiled = self._of(connection)
        if len(rows) == 1:
            _execute(connection, compiled.text, compiled.bind(rows[0]))
        elif rows:
            _execute(connection, compiled.text, [compiled.bind(values) for values in rows], many=True)

    def _of(self, connection: Connection) -> "_Compiled":
        found = self._by_dialect.get(connection.dialect.name)
        if found is None:
            built = self._build(connection.dialect.name) if callable(self._build) else self._build
            found = self._by_dialect[connection.dialect.name] = _Compiled(built, connection.dialect)
        return found


class BulkStatement:
    """A statement over any number of items, compiled once for each number and executed as plain SQL.

    Values go to the driver as they are, so JSON columns take text. PostgreSQL takes all items in one statement, which
    is one round trip. SQLite takes them in powers of two: groups of writes have any size, and to compile the insertion
    of 16 reports takes 4 ms, in which nothing is committed.
    """

    def __init__(self, build: Callable[[Any, int], Any]) -> None:
        """`build(insert, count)` returns the statement, with its binds in the order of items.

        `insert` is the dialect's own function.
        """
        self._build = build
        self._texts: dict[tuple[str, int], str] = {}

    def rows(self, connection: Connection, count: int, values: Sequence[Any]) -> list[Row]:
        """Execute the statement for `count` items, whose `values` follow each other, and return its rows."""
        return [row for cursor in self._executed(connection, count, values) for row in cursor.fetchall()]

    def run(self, connection: Connection, count: int, values: Sequence[Any]) -> None:
        """Execute the statement for `count` items, whose `values` follow each other."""
        for _ in self._executed(connection, count, values):
            pass

    def _executed(self, connection: Connection, count: int, values: Sequence[Any]) -> Iterator[Any]:
        """Execute the statement for one portion of the items after the other, and yield the cursor of each."""
        size, left = len(values) // count, count
        while left:
            portion = 1 << (left.bit_length() - 1) if connection.dialect.name == "sqlite" else left
            start = (count - left) * size
            yield self._execute_for(connection, portion, values[start : start + portion * size])
            left -= portion

    def _execute_for(self, connection: Connection, count: int, values: Sequence[Any]) -> Any:
        key = (connection.dialect.name, count)
        text = self._texts.get(key)
        if text is None:
            built = self._build(own_insert(connection.dialect.name), count)
            text = self._texts[key] = str(built.compile(dialect=connection.dialect))
        return _execute(connection, text, tuple(values))


class Together:
    """Queries with the same parameters, read at once: as JSON in one statement, which returns one row.

    PostgreSQL takes one round trip for them, not one for each. For SQLite, the reading thread takes the interpreter's
    lock from the event loop once, not once for each row. Their columns must have JSON values: no bytes.
    """

    def __init__(self, *queries: Select[Any]) -> None:
        self._each = [Statement(query) for query in queries]
        subqueries = [query.subquery() for query in queries]
        self._at_once = Statement(lambda dialect: select(*(_as_json(dialect, rows) for rows in subqueries)))

    def rows(self, connection: Connection, values: Values) -> list[list[Row]]:
        """Return the rows of each query."""
        [found] = self._at_once.rows(connection, values)
        if connection.dialect.name != "sqlite":
            return [rows or [] for rows in found]
        return [
            statement.converted(connection, json.loads(rows)) for statement, rows in zip(self._each, found, strict=True)
        ]


def _as_json(dialect: str, rows: Any) -> Any:
    if dialect == "sqlite":
        return select(func.json_group_array(func.json_array(*rows.c), type_=Text)).scalar_subquery()
    return select(func.json_agg(func.json_build_array(*rows.c))).scalar_subquery()


def own_insert(dialect: str) -> Callable[[Table], Any]:
    """Return the function `insert` of a dialect."""
    if dialect == "sqlite":
        return sqlite_insert
    from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415 -- a gateway on SQLite saves 20 ms

    return insert


# -- lists as one parameter --------------------------------------------------------------------------------------


class _List(TypeDecorator[Sequence[Any]]):
    """A list as one value: an array, or JSON in SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[BigInteger] | type[Text]) -> None:
        super().__init__()
        self.kind = kind

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(ARRAY(self.kind) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> Any:
        items = list(value or ())
        return items if dialect.name == "postgresql" else json.dumps(items)


def each_of(dialect: str, name: str) -> ColumnElement[str]:
    """Return a column with the texts of the parameter `name`, a row for each."""
    texts: BindParameter[Any] = bindparam(name, type_=_List(Text))
    if dialect == "postgresql":
        return func.unnest(texts).column_valued("each_text")
    return func.json_each(texts).table_valued("value", name="json_each").c.value


class _IsOneOf(ColumnElement[bool]):
    inherit_cache = False

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column = column
        kind = Text if isinstance(column.type, String) else BigInteger
        self.values: BindParameter[Any] = bindparam(name, type_=_List(kind))


@compiles(_IsOneOf, "postgresql")
def _in_array(element: _IsOneOf, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.column == any_(element.values), **options)


@compiles(_IsOneOf, "sqlite")
def _in_json(element: _IsOneOf, compiler: SQLCompiler, **options: Any) -> str:
    values = select(literal_column("value", element.column.type)).select_from(func.json_each(element.values))
    return compiler.process(element.column.in_(values), **options)


def is_one_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return whether `column` is one of the values of the parameter `name`: one text for any number, unlike IN."""
    return _IsOneOf(column, name)


def execute_text(connection: Connection, text: str) -> None:
    """Execute a statement without parameters, even while SQLAlchemy begins a transaction; raise DBAPIError."""
    try:
        connection.connection.cursor().execute(text)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(connection, text, error) from error


# -- execution ---------------------------------------------------------------------------------------------------


class _Compiled:
    """The text of a statement for one dialect, and what its parameters and columns need."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self._names: tuple[str, ...] = tuple(compiled.positiontup or ())
        binds = {name: compiled.binds[name] for name in self._names}
        self._constants: dict[str, Any] = {
            name: bind.effective_value for name, bind in binds.items() if not bind.required
        }
        self._binders: list[tuple[str, Converter]] = [
            (name, converter)
            for name, bind in binds.items()
            if (converter := bind.type.dialect_impl(dialect).bind_processor(dialect))
        ]
        columns = getattr(statement, "exported_columns", ())
        self.converters: list[tuple[int, Converter]] = [
            (index, converter)
            for index, column in enumerate(columns)
            if (converter := column.type.dialect_impl(dialect).result_processor(dialect, None))
        ]

    def bind(self, values: Values) -> Row:
        """Return the values in the order of the statement's parameters."""
        if self._constants or self._binders:
            values = {**self._constants, **values}
            for name, converter in self._binders:
                values[name] = converter(values[name])
        return tuple([values[name] for name in self._names])

    def converted(self, rows: Iterable[Row]) -> list[Row]:
        """Return rows of the driver with the values that the columns' types stand for."""
        return [self._convert(list(row)) for row in rows]

    def _convert(self, row: list[Any]) -> Row:
        for index, converter in self.converters:
            if row[index] is not None:
                row[index] = converter(row[index])
        return tuple(row)


def _execute(connection: Connection, text: str, parameters: Sequence[Any], *, many: bool = False) -> Any:
    """Execute a statement as SQLAlchemy does, and return the cursor: begin a transaction, raise DBAPIError."""
    if not connection.in_transaction():
        connection.begin()
    cursor = connection.connection.cursor()
    for listener in connection.dispatch.before_cursor_execute:  # the benches and tests that explain statements
        listener(connection, cursor, text, parameters, None, many)
    try:
        (cursor.executemany if many else cursor.execute)(text, parameters)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(connection, text, error) from error
    return cursor


def _as_sqlalchemy(connection: Connection, text: str, error: Any) -> Exception:
    """Return the DBAPIError that SQLAlchemy raises for an error of the driver."""
    found: Exception = DBAPIError.instance(
        text,
        None,
        error,
        connection.dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=connection.dialect.is_disconnect(error, connection.connection, None),
        dialect=connection.dialect,
    )
    return found
