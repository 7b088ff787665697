import pytest

from bridge.sandbox.state import Behaviour, SandboxState


@pytest.mark.parametrize(
    "changes",
    [
        {"url_seconds": 10},
        {"processing_seconds": 0},
        {"register_latency_seconds": 0.5},
        {"result_shape": "array"},
        {"keep_bytes": False},
        {"storage_idle_seconds": 1.5},
    ],
)
def test_every_setting_can_be_changed_alone(changes):
    changed = Behaviour(codearts_tokens=("t",)).changed(changes)
    assert {name: getattr(changed, name) for name in changes} == changes
    assert changed.codearts_tokens == ("t",)


def test_tokens_come_as_a_list_and_are_kept_as_a_tuple():
    assert Behaviour().changed({"codearts_tokens": ["a", "b"]}).codearts_tokens == ("a", "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"url_seconds": 0},
        {"url_seconds": True},
        {"processing_seconds": -1},
        {"result_shape": "list"},
        {"keep_bytes": 1},
        {"codearts_tokens": "token"},
        {"colour": "red"},
    ],
)
def test_a_setting_that_does_not_exist_or_does_not_fit_is_refused_by_its_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Behaviour().changed(changes)


def test_the_worlds_time_is_whole_microseconds_of_its_clock():
    world = SandboxState(now=lambda: 12.5, testnod_url="", s3_url="")
    assert world.micros() == 12_500_000
