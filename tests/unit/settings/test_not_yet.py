import pytest

from bridge.settings.not_yet import NOT_YET

HOST = '[server]\nhost = "127.0.0.1"\n{server}\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'
ROWS = {
    "server.tls_cert_file": ('tls_cert_file = "x"', "", ""),
    "server.tls_key_file": ('tls_key_file = "x"', "", ""),
    "server.behind_tls": ("behind_tls = true", "", ""),
    "routes[0].mirror": ("", "", "mirror = true"),
    "routes[0].quality": ("", "", '[routes.quality]\ntask_id = "x"'),
}


@pytest.mark.parametrize("key", ROWS)
def test_what_this_version_cannot_do_is_refused_and_not_ignored(complains, key):
    server, tables, route = ROWS[key]
    callers = "" if "[callers]" in tables else '[callers]\nauth = "open"\n'
    (complaint,) = complains(HOST.replace("{server}", server) + callers + tables + "\n" + ROUTE + route)
    assert complaint.startswith(f"{key}: this version cannot ")
    assert complaint.endswith(" yet. Take the setting out.")


def test_each_row_of_the_table_is_tried():
    assert sorted(row.key.replace("[]", "[0]") for row in NOT_YET) == sorted(ROWS)
