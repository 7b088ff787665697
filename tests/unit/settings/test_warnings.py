from datetime import UTC, datetime

import pytest

from bridge.settings import warnings

BASE = '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n'
KEY = '[[callers.keys]]\nname = "ci"\naccess_key = "AKOFCI"\nsecret_key = "canary-secret-key-of-ci"\n'
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


CALLER = '[[callers.tokens]]\nname = "ci"\ntoken = "0123456789abcdef"\nroutes = {}\n'


@pytest.mark.parametrize(
    ("first", "second", "routes", "tables", "warned"),
    [
        ({"branch": "main"}, {"branch": "dev"}, ["a"], "", True),
        ({"branch": "main"}, {}, ["b"], "", True),
        ({"branch": "main", "job_id": "aa*"}, {"project_id": "p"}, ["a"], "", True),
        ({"branch": "main"}, {"branch": "dev"}, ["a", "b"], "", False),
        ({"branch": "main"}, {"branch": "dev"}, ["a"], CODEARTS, False),
        ({"job_id": "aa*"}, {"job_id": "bb*"}, ["a"], "", False),
        ({"job_id": "aa*"}, {}, ["a"], "", False),
    ],
)
def test_routes_that_only_uploads_tell_apart_give_a_warning_if_their_callers_differ(
    loads, first, second, routes, tables, warned
):
    text = BASE + tables + CALLER.format(routes) + route("a", **first) + route("b", **second)
    found = [line for line in warnings(loads(text)) if "what the first upload states decides" in line]
    assert len(found) == warned
    assert all(line.startswith('routes[1]: "b" and "a" take the same jobs') for line in found)


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
        (BASE + CODEARTS + '[testnod]\nbase_url = "https://testnod.example/integrations"\n', "testnod.base_url"),
        (BASE + CODEARTS.replace("example", "example/v1/job"), "codearts.endpoint"),
        (BASE + CODEARTS + '[store]\nretention = "0s"\n', "store.retention"),
        (BASE + CODEARTS + '[store]\nrejected_retention = "1s"\n', "store.rejected_retention"),
        (BASE + CODEARTS + '[store]\nmin_free_space = "0 B"\n', "store.min_free_space"),
        (BASE.replace("[callers]", 'shutdown_timeout = "10m"\n[callers]') + CODEARTS, "server.shutdown_timeout"),
        (BASE + CODEARTS + '[admin]\ntoken = "x"\n', "admin.token"),
        (BASE + CODEARTS + '[webhook]\nsecret = "x"\n', "webhook.secret"),
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
        ("tokens", 'token = "token-of-32-characters-or-so"', "token"),
        ("keys", 'access_key = "a"\nsecret_key = "secret-key-of-ci"', "aksk"),
        ("users", "", "iam"),
    ],
)
def test_callers_of_a_scheme_that_is_not_enabled_give_a_warning(loads, key, table, scheme):
    found = warnings(loads(BASE + f'[[callers.{key}]]\nname = "ci"\n{table}\n' + CODEARTS + route("a")))
    assert f'callers.{key}: are not used, because callers.auth lacks "{scheme}". ' in found[0]


def test_a_webhook_without_codearts_gives_a_warning(loads):
    found = warnings(loads(BASE + '[webhook]\nsecret = "secret-of-the-webhook"\n' + route("a")))
    assert [line for line in found if line.startswith("webhook.secret: is not used")]
    assert warnings(loads(BASE + CODEARTS + '[webhook]\nsecret = "secret-of-the-webhook"\n' + route("a"))) == []


def test_one_secret_for_two_purposes_gives_a_warning(loads):
    one = 'token = "canary-canary-canary"\n'
    text = BASE.replace('"open"', '"token"') + '[[callers.tokens]]\nname = "ci"\n' + one + "[admin]\n" + one
    assert warnings(loads(text + CODEARTS + route("a"))) == [
        (
            "admin.token: is the same secret as callers.tokens[0].token. "
            "Use a separate one, so that each can be replaced alone."
        )
    ]


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        ("0123456789abcde", "fewer than 16 characters"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "fewer than 6 different characters"),
        ("12312312312312312312", "fewer than 6 different characters"),
        ("5f0a64e3b4c2d1907f8e6a5b3c2d1e0f", None),
    ],
)
@pytest.mark.parametrize("key", ["token", "viewer_token"])
def test_a_token_that_may_be_guessed_gives_a_warning(loads, key, token, fault):
    found = warnings(loads(BASE + f'[admin]\n{key} = "{token}"\n' + CODEARTS + route("a")))
    assert [line.split(",")[0] for line in found] == ([f"admin.{key}: has {fault}"] if fault else [])


NOW = datetime(2030, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expires_at", "sentences"),
    [
        ("2030-08-01T00:00:00Z", []),
        (
            "2030-06-11T08:00:00+08:00",
            ['"ci" expires at 2030-06-11 00:00 UTC, in 10 days. Replace its secret and the date before that.'],
        ),
        (
            "2030-06-02T00:00:00Z",
            ['"ci" expires at 2030-06-02 00:00 UTC, in 1 day. Replace its secret and the date before that.'],
        ),
        (
            "2030-06-01T00:00:00Z",
            [
                (
                    '"ci" expired at 2030-06-01 00:00 UTC, so its requests are answered 401. '
                    "Replace its secret and the date, or remove the table."
                )
            ],
        ),
    ],
)
@pytest.mark.parametrize(
    ("key", "auth", "secret"),
    [
        ("tokens", "token", 'token = "canary-canary-canary"'),
        ("keys", "aksk", 'access_key = "AK"\nsecret_key = "canary-canary-canary"'),
    ],
)
def test_a_caller_that_expired_or_soon_will_gives_a_warning(loads, key, auth, secret, expires_at, sentences):
    table = f'[[callers.{key}]]\nname = "ci"\n{secret}\nexpires_at = {expires_at}\n'
    settings = loads(BASE.replace('"open"', f'"{auth}"') + table + CODEARTS + route("a"))
    assert warnings(settings, now=NOW) == [f"callers.{key}[0].expires_at: {sentence}" for sentence in sentences]


SYNTAX = "A glob has only *, ?, [abc] and [!abc]; it is not a regular expression."


@pytest.mark.parametrize(
    ("name", "glob", "sentence"),
    [
        ("branch", "main$", f'matches only names with "$" in them. {SYNTAX}'),
        ("branch", "release.*", f'matches only names with ".*" in them. {SYNTAX}'),
        ("branch", "main|dev", f'matches only names with "|" in them. {SYNTAX}'),
        ("branch", "!main", f'matches only names with "!" in them. {SYNTAX}'),
        ("branch", "{main,dev}", f'matches only names with "{{main,dev}}" in them. {SYNTAX}'),
        ("branch", "main,dev", 'matches only names with "," in them. Write several globs as a list.'),
        ("branch", "main ", "begins or ends with a space, which names rarely do. Remove it."),
        (
            "job_id",
            "SHOP*",
            (
                "has capitals, or letters after f, which no id of CodeArts has. "
                "A job_id is the 32 letters and digits at the end of the build task's page address."
            ),
        ),
    ],
)
def test_a_glob_that_looks_like_something_else_gives_a_warning(loads, name, glob, sentence):
    found = warnings(loads(BASE + CODEARTS + route("a", **{name: glob})))
    assert found == [f"routes[0].{name}: {sentence}"]


def test_a_build_that_ends_before_its_second_upload_gives_a_warning(loads):
    found = warnings(loads(BASE + '[polling]\nidle_timeout = "0s"\n' + route("a")))
    assert "polling.idle_timeout: is 0s, so a build ends before its second upload. Use minutes." in found
