import pytest

from bridge.errors import TooLarge
from bridge.server.upload.limits import UploadBudget


def test_a_budget_may_be_spent_to_the_last_and_no_further():
    budget = UploadBudget(10, "bytes")
    budget.take(4, "a.zip")
    budget.take(6, "b.zip")
    with pytest.raises(TooLarge):
        budget.take(1, "c.zip")


def test_whoever_takes_more_than_is_left_is_named():
    budget = UploadBudget(10, "bytes")
    budget.take(10, "a.zip")
    with pytest.raises(TooLarge, match=r"^b\\x1b.zip: with it the upload comes to more than 10 bytes\. Send"):
        budget.take(1, "b\x1b.zip")
