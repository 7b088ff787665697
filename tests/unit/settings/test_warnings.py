import pytest

from bridge.settings import warnings

BASE = '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n'
KEY = '[[callers.keys]]\nname = "ci"\naccess_key = "AKOFCI"\nsecret_key = "canary-sk"\n'
CODEARTS = '[codearts]\nendpoint = "https://build.example"\n'


def route(name, **globs):
    lines = "".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in globs.items())
    return f'[[routes]]\nname = "{name}"\nproject_token = "t-{name}"\n{lines}'


def test_valid_settings_give_no_warning(loads):
    assert warnings(loads(BASE + CODEARTS + route("a", branch="main") + route("b"))) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({}, {"branch": "main"}),
        ({"branch": "release/*"}, {"branch": "release/1"}),
        ({"branch": "release/*"}, {"branch": "release/*", "job_id": "a*"}),
        ({"branch": ["main", "dev"]}, {"branch": ["dev"]}),
    ],
)
def test_a_route_after_one_that_matches_all_its_builds_gives_a_warning(loads, first, second):
    found = warnings(loads(BASE + CODEARTS + route("a", **first) + route("b", **second)))
    assert found == ['routes[1]: "b" never matches, because "a" comes first and matches all its builds. Put it first.']


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"branch": "main"}, {}),
        ({"branch": "main"}, {"branch": "Main"}),
        ({"branch": "release/?"}, {"branch": "release/*"}),
        ({"branch": "main", "job_id": "a*"}, {"branch": "main"}),
        ({"branch": ["main"]}, {"branch": ["main", "dev"]}),
    ],
)
def test_a_route_that_may_still_match_is_not_warned_of(loads, first, second):
    assert warnings(loads(BASE + CODEARTS + route("a", **first) + route("b", **second))) == []


def test_a_shared_ledger_with_a_spool_folder_gives_a_warning(loads):
    (found,) = warnings(loads(BASE + '[store]\nurl = "postgresql://u@h/d"\n' + CODEARTS + route("a")))
    assert found.startswith("store.spool: is a folder, although the ledger is in PostgreSQL.")


def test_without_codearts_a_warning_explains_how_builds_end(loads):
    assert warnings(loads(BASE + '[polling]\nidle_timeout = "90s"\n' + route("a"))) == [
        (
            "codearts.endpoint: is empty, so the end of a build cannot be polled. A run is finalized when an upload "
            "has complete=true, or after 1m30s without a report (polling.idle_timeout)."
        )
    ]


def test_without_codearts_a_route_by_repository_never_matches(loads):
    assert any(
        line.startswith('routes[0].repo: "a" never matches') for line in warnings(loads(BASE + route("a", repo="x")))
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (BASE + CODEARTS.replace("https", "http"), "codearts.endpoint"),
        (BASE + CODEARTS + '[testnod]\nbase_url = "http://testnod.example"\n', "testnod.base_url"),
        (BASE + CODEARTS + "[testnod]\nallow_private_storage = true\n", "testnod.allow_private_storage"),
        (CODEARTS + '[callers]\nauth = "open"\nallow_open = true\n', "callers.auth"),
        (CODEARTS + '[callers]\nauth = "aksk"\n' + KEY, "server.behind_tls_proxy"),
        (BASE + CODEARTS + 'token = "canary"\n', "codearts.token"),
        (BASE + CODEARTS + 'password = "canary"\n', "codearts.password"),
        (BASE + CODEARTS + 'auth = "token"\ntoken = "a"\naccess_key = "canary"\n', "codearts.access_key"),
        (BASE + CODEARTS + 'iam_endpoint = "http://iam.example"\n', "codearts.iam_endpoint"),
        (BASE + CODEARTS + '[outbound]\nno_proxy = "localhost"\n', "outbound.no_proxy"),
        (BASE + CODEARTS + '[polling]\ngrace_period = "1h"\n', "polling.grace_period"),
    ],
)
def test_probably_unintended_settings_give_a_warning_by_key(loads, text, key):
    assert [line.partition(":")[0] for line in warnings(loads(text + route("a")))] == [key]


def test_credentials_without_an_endpoint_give_a_warning(loads):
    found = warnings(loads(BASE + '[codearts]\nauth = "token"\ntoken = "canary"\n' + route("a")))
    assert [line.partition(":")[0] for line in found] == ["codearts.endpoint", "codearts.auth"]


def test_private_storage_with_listed_hosts_gives_no_warning(loads):
    testnod = '[testnod]\nallow_private_storage = true\nstorage_hosts = ["minio.lan"]\n'
    assert warnings(loads(BASE + CODEARTS + testnod + route("a"))) == []


@pytest.mark.parametrize(
    ("key", "table", "scheme"),
    [
        ("tokens", 'token = "t"', "token"),
        ("keys", 'access_key = "a"\nsecret_key = "s"', "aksk"),
        ("users", "", "iam"),
    ],
)
def test_callers_of_a_scheme_that_is_not_enabled_give_a_warning(loads, key, table, scheme):
    found = warnings(loads(BASE + f'[[callers.{key}]]\nname = "ci"\n{table}\n' + CODEARTS + route("a")))
    assert f'callers.{key}: are not used, because callers.auth lacks "{scheme}". ' in found[0]


def test_a_webhook_without_codearts_gives_a_warning(loads):
    found = warnings(loads(BASE + '[webhook]\nsecret = "s"\n' + route("a")))
    assert [line for line in found if line.startswith("webhook.secret: is not used")]
    assert warnings(loads(BASE + CODEARTS + '[webhook]\nsecret = "s"\n' + route("a"))) == []


@pytest.mark.parametrize(
    ("url", "count"),
    [
        ("https://nod.example", 0),
        ("https://nod.example/", 0),
        ("https://nod.example/api", 1),
        ("https://n.example/a/", 1),
    ],
)
def test_a_path_in_testnods_address_gives_a_warning(loads, url, count):
    found = warnings(loads(BASE + CODEARTS + f'[testnod]\nbase_url = "{url}"\n' + route("a")))
    assert [line.partition(":")[0] for line in found] == ["testnod.base_url"] * count
