import sys
from types import ModuleType

import pytest

from tests.faults.replacing import replace_everywhere


@pytest.fixture
def module(monkeypatch):
    """Make modules that are known for the length of a test."""

    def made(path, **names):
        module = ModuleType(path)
        module.__dict__.update(names)
        monkeypatch.setitem(sys.modules, path, module)
        return module

    return made


def test_a_name_is_replaced_wherever_the_product_has_taken_it(module):
    original, other = object(), object()
    first = module("elsewhere", thing=original)
    taker, namesake = module("bridge.made_up.taker", thing=original), module("bridge.made_up.namesake", thing=other)
    stranger = module("stranger", thing=original)
    replace_everywhere(first, "thing", "replaced")
    assert (first.thing, taker.thing) == ("replaced", "replaced")
    assert (namesake.thing, stranger.thing) == (other, original)


def test_a_name_that_is_not_there_is_not_replaced_in_silence(module):
    with pytest.raises(AttributeError):
        replace_everywhere(module("bridge.made_up"), "thing", 1)
