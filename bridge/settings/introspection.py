"""What kind of thing a field of the model is: a secret, a list, a table, a list of tables.

The overlay, the secret files, the complaints and the summary ask here, so that none of them lists settings by name.
"""

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bridge.settings.model import SettingsTable

FILE_SUFFIX = "_file"


def is_secret(field: FieldInfo) -> bool:
    """Tell whether the field holds one secret or several."""
    return SecretStr in _types(field.annotation)


def is_list(field: FieldInfo) -> bool:
    """Tell whether the field holds a list of plain values."""
    return get_origin(field.annotation) is tuple and table_of(field) is None


def is_table_list(field: FieldInfo) -> bool:
    """Tell whether the field is a list of named tables, `[[…]]`."""
    return get_origin(field.annotation) is tuple and table_of(field) is not None


def table_of(field: FieldInfo) -> type[SettingsTable] | None:
    """Return the table that the field holds, or holds a list of."""
    return next(
        (kind for kind in _types(field.annotation) if isinstance(kind, type) and issubclass(kind, SettingsTable)), None
    )


def tables(
    table: type[SettingsTable], raw: Any, key: str = ""
) -> Iterator[tuple[str, type[SettingsTable], dict[str, Any]]]:
    """Yield every table that `raw` holds, with its key (`routes[0].code_check`) and its model; skip what is no table."""
    if not isinstance(raw, dict):
        return
    yield key, table, raw
    for name, field in table.model_fields.items():
        kind = table_of(field)
        if kind is None or name not in raw:
            continue
        path = f"{key}.{name}" if key else name
        if is_table_list(field):
            for index, item in enumerate(raw[name] if isinstance(raw[name], list) else []):
                yield from tables(kind, item, f"{path}[{index}]")
        else:
            yield from tables(kind, raw[name], path)


def names_of(table: type[SettingsTable]) -> list[str]:
    """Return every name that may stand in the table, `…_file` of secrets included."""
    names = list(table.model_fields)
    return names + [name + FILE_SUFFIX for name, field in table.model_fields.items() if is_secret(field)]


def _types(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)
