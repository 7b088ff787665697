import pytest

from bridge.settings.not_yet import NOT_YET

HOST = '[server]\nhost = "127.0.0.1"\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'
ROWS = {
    "routes[0].mirror": "mirror = true",
}


@pytest.mark.parametrize("key", ROWS)
def test_what_this_version_cannot_do_is_refused_and_not_ignored(complains, key):
    (complaint,) = complains(HOST + '[callers]\nauth = "open"\n' + ROUTE + ROWS[key])
    assert complaint.startswith(f"{key}: this version cannot ")
    assert complaint.endswith(" yet. Take the setting out.")


def test_each_row_of_the_table_is_tried():
    assert sorted(row.key.replace("[]", "[0]") for row in NOT_YET) == sorted(ROWS)
