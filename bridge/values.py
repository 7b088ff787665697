"""`dataclass`, as the standard library has it, with methods that are generated when they are called first.

The standard library compiles six functions for each class when its module is imported: for some 400 classes a quarter
of the CPU of a start. Most of them are never called. `fields`, `replace`, `asdict`, `match` and pickle work as usual.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

Method = Callable[..., Any]


def _decorator(*, frozen: bool = False, kw_only: bool = False, slots: bool = False, eq: bool = True) -> Any:
    def decorate(cls: type) -> type:
        cls.__doc__ = cls.__doc__ or cls.__name__  # otherwise it would be made from the signature, which takes long
        cls = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only, slots=slots)(cls)
        methods: dict[str, Any] = {"__signature__": SIGNATURE}
        methods |= _generated_later(cls, "__init__", init=True, frozen=frozen)
        methods |= _generated_later(cls, "__repr__", repr=True)
        if eq and frozen:
            methods |= _generated_later(cls, "__eq__", "__hash__", eq=True, unsafe_hash=True)
        elif eq:
            methods |= _generated_later(cls, "__eq__", eq=True) | {"__hash__": None}
        if frozen:
            methods |= {"__setattr__": _set_value, "__delattr__": _delete_value}
        if frozen and slots:
            methods |= {"__getstate__": _state, "__setstate__": _restore}
        for name, method in methods.items():
            if name not in cls.__dict__ or cls.__dict__[name] is None:  # the class's own methods are kept
                setattr(cls, name, method)
        return cls

    return decorate


def _generated_later(cls: type, *names: str, **options: Any) -> dict[str, Any]:
    """Return the methods `names`; the first call of one has the standard library generate them all."""

    def generate() -> None:
        model = dataclasses.make_dataclass(
            cls.__name__,
            [(field.name, Any, _copy(field)) for field in dataclasses.fields(cls)],
            namespace={"__qualname__": cls.__qualname__, "__doc__": cls.__doc__},  # for messages; and as above
            **{"init": False, "repr": False, "eq": False} | options,
        )
        for name, method in replaced.items():
            if cls.__dict__[name] is method:
                setattr(cls, name, model.__dict__[name])

    def postponed(name: str) -> Method:
        def method(self: object, /, *arguments: object, **values: object) -> Any:
            generate()
            return cls.__dict__[name](self, *arguments, **values)

        return method

    replaced = {name: postponed(name) for name in names}
    return replaced


def _copy(field: "dataclasses.Field[Any]") -> Any:
    copied = ("default", "default_factory", "repr", "compare", "kw_only")
    return dataclasses.field(**{name: getattr(field, name) for name in copied})


def _set_value(self: object, name: str, value: object) -> None:
    _require_no_field(self, "assign to", name)
    object.__setattr__(self, name, value)


def _delete_value(self: object, name: str) -> None:
    _require_no_field(self, "delete", name)
    object.__delattr__(self, name)


def _require_no_field(value: Any, what: str, name: str) -> None:
    if "__dataclass_fields__" in type(value).__dict__ or name in value.__dataclass_fields__:
        raise FrozenInstanceError(f"cannot {what} field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__dataclass_fields__]


def _restore(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__dataclass_fields__, state, strict=True):
        object.__setattr__(self, name, value)


class _LazySignature:
    """The signature of a class, for `inspect`: made when it is read."""

    def __get__(self, _: object, cls: type) -> Signature:
        parameters = []
        for field in sorted(dataclasses.fields(cls), key=lambda field: bool(field.kw_only)):
            kind = Parameter.KEYWORD_ONLY if field.kw_only else Parameter.POSITIONAL_OR_KEYWORD
            missing = field.default is field.default_factory is dataclasses.MISSING
            default = Parameter.empty if missing else field.default
            parameters.append(Parameter(field.name, kind, default=default, annotation=field.type))
        return Signature(parameters)


SIGNATURE = _LazySignature()

if TYPE_CHECKING:
    from dataclasses import dataclass  # what checkers know
else:
    dataclass = _decorator
