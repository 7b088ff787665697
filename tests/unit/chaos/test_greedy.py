import pytest

from tests.chaos.greedy import is_its_own

OWN, FOREIGN = {"caller": "greedy"}, {"caller": "ci"}


@pytest.mark.parametrize(
    ("build", "own"),
    [
        ({"route": None, "reports": [], "rejections": [OWN]}, True),
        ({"route": "greedy", "reports": [OWN], "rejections": []}, True),
        ({"route": None, "reports": [], "rejections": [OWN, FOREIGN]}, False),
        ({"route": None, "reports": [FOREIGN], "rejections": [OWN]}, False),
        ({"route": "all", "reports": [], "rejections": [OWN]}, False),
    ],
)
def test_a_caller_may_see_what_is_its_own(build, own):
    assert is_its_own(build) is own
