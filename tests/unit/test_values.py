"""Dataclasses whose methods are generated when they are called first: like those of the standard library."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from bridge import values


def point_of(decorator: Callable[..., Any], **options: bool) -> Any:
    class Point:
        """A point."""

        x: int
        y: int = 2
        label: str = dataclasses.field(default="", repr=False)
        seen: list[int] = dataclasses.field(default_factory=list, compare=False)

    return decorator(**options)(Point)


OPTIONS = [
    {"frozen": True, "kw_only": True, "slots": True},
    {"frozen": True, "slots": True},
    {"frozen": True, "kw_only": True},
    {"kw_only": True, "slots": True},
    {"frozen": True, "slots": True, "eq": False},
    {},
]


@pytest.fixture(params=OPTIONS, ids=str)
def both(request):
    return point_of(values.dataclass, **request.param), point_of(dataclasses.dataclass, **request.param)


def outcome(function: Callable[[], object]) -> object:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 -- compared
        return type(error), str(error)


@pytest.mark.parametrize(
    "use",
    [
        lambda kind: repr(kind(x=1, label="secret")),
        lambda kind: kind(1, 3).y,
        lambda kind: kind(x=1) == kind(x=1, seen=[1]),
        lambda kind: kind(x=1) == kind(x=2),
        lambda kind: kind(x=1) == 1,
        lambda kind: len({kind(x=1), kind(x=1), kind(x=2)}),
        lambda kind: kind(),
        lambda kind: kind(x=1, z=2),
        lambda kind: kind(x=1).seen is kind(x=1).seen,
        lambda kind: setattr(kind(x=1), "x", 2),
        lambda kind: delattr(kind(x=1), "x"),
        lambda kind: dataclasses.replace(kind(x=1), y=5).y,
        lambda kind: dataclasses.replace(kind(x=1), z=5),
        lambda kind: dataclasses.asdict(kind(x=1)),
        lambda kind: [field.name for field in dataclasses.fields(kind)],
        lambda kind: list(inspect.signature(kind).parameters),
        lambda kind: [each.kind for each in inspect.signature(kind).parameters.values()],
        lambda kind: copy.deepcopy(kind(x=1, seen=[1])).seen,
        lambda kind: kind.__match_args__,
        lambda kind: kind.__doc__,
        lambda kind: hasattr(kind(x=1), "__dict__"),
    ],
)
def test_a_dataclass_behaves_like_that_of_the_standard_library(both, use):
    ours, theirs = both

    assert outcome(lambda: use(ours)) == outcome(lambda: use(theirs))


@values.dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A value at the top of a module, so that pickle finds it."""

    name: str
    size: int = 0


def test_a_frozen_value_with_slots_can_be_pickled():
    assert pickle.loads(pickle.dumps(Kept(name="a", size=3))) == Kept(name="a", size=3)  # noqa: S301 -- our own


def test_a_method_that_the_class_defines_itself_is_kept():
    @values.dataclass(frozen=True)
    class Secret:
        text: str

        def __repr__(self) -> str:
            return "Secret(…)"

    assert repr(Secret("a")) == "Secret(…)"


def test_a_class_that_is_not_used_has_no_generated_code():
    unused = point_of(values.dataclass, frozen=True, kw_only=True, slots=True)

    assert unused.__init__.__code__.co_filename == values.__file__


def test_methods_are_generated_without_the_signature_which_takes_long(monkeypatch):
    point = point_of(values.dataclass, frozen=True)
    asked = []
    monkeypatch.setattr(inspect, "signature", asked.append)
    assert point(1) == point(1)
    assert repr(point(1)).endswith("Point(x=1, y=2, seen=[])")
    assert asked == []
